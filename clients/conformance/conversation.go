package main

import (
	"bytes"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
)

//go:embed conversations/*.json
var files embed.FS

// conversation is what a client is to call, and what is at the other end of its socket.
type conversation struct {
	Name   string   `json:"name"`
	About  string   `json:"about"`
	Client settings `json:"client"`
	Calls  []step   `json:"calls"`
	Server server   `json:"server"`
	// With the real sidecar: what the runner stores before the command runs, changes while it
	// runs, and compares after it has ended.
	Before []stored `json:"before"`
	During []change `json:"during"`
	After  []stored `json:"after"`
}

// settings of the client. Those that are left out in a file have a default.
type settings struct {
	TimeoutMS        int    `json:"timeout_ms"`
	ConnectTimeoutMS int    `json:"connect_timeout_ms"`
	Namespace        string `json:"namespace"`
	MaxInFlight      int    `json:"max_in_flight"`
	NearCache        bool   `json:"near_cache"`
	FailOpen         bool   `json:"fail_open"`
	SharedMemory     bool   `json:"shared_memory"`
}

// The times are long: only conversations about a timeout have a short one.
var defaults = settings{
	TimeoutMS: 20_000, ConnectTimeoutMS: 20_000, Namespace: "users", MaxInFlight: 1024, FailOpen: true,
}

// step is one call, several that begin together, or a wait.
type step struct {
	Together []call `json:"together,omitempty"`
	// Of Together: how often the loaders are called, of all its calls.
	Loads  *int `json:"loads,omitempty"`
	WaitMS int  `json:"wait_ms,omitempty"`
	Repeat int  `json:"repeat,omitempty"` // in the files only: the manifest has the step as often
	call
}

type call struct {
	Do        string          `json:"do,omitempty"`
	Key       *value          `json:"key,omitempty"`
	Keys      []value         `json:"keys,omitzero"`
	Value     *value          `json:"value,omitempty"`
	Version   json.RawMessage `json:"version,omitempty"` // a number, or "last"
	TTLMS     *int64          `json:"ttl_ms,omitempty"`
	TimeoutMS int             `json:"timeout_ms,omitempty"`
	Fresh     bool            `json:"fresh,omitempty"`
	StaleOK   bool            `json:"stale_ok,omitempty"`
	Create    bool            `json:"create,omitempty"`
	CacheOnly bool            `json:"cache_only,omitempty"`
	Delta     *json.Number    `json:"delta,omitempty"`
	Initial   *json.Number    `json:"initial,omitempty"`
	Load      *value          `json:"load,omitempty"`
	Until     *value          `json:"until,omitempty"`
	CancelMS  int             `json:"cancel_ms,omitempty"`
	Want      *want           `json:"want,omitempty"`
}

// want is the result of a call.
type want struct {
	Value     *value          `json:"value,omitempty"`
	Values    []*value        `json:"values,omitzero"`
	Bytes     *string         `json:"bytes,omitempty"` // hex
	Flags     *uint32         `json:"flags,omitempty"`
	Version   *uint64         `json:"version,omitempty"`
	TTL       *bool           `json:"ttl,omitempty"`
	Miss      bool            `json:"miss,omitempty"`
	Stored    *bool           `json:"stored,omitempty"`
	Deleted   json.RawMessage `json:"deleted,omitempty"` // a truth value, or a list of them
	Touched   *bool           `json:"touched,omitempty"`
	Number    *string         `json:"number,omitempty"`
	Loads     *int            `json:"loads,omitempty"`
	LoadError bool            `json:"load_error,omitempty"`
	OK        bool            `json:"ok,omitempty"`
	Cancelled bool            `json:"cancelled,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"` // a kind, or a list of them
}

// stored is what the real sidecar has, or has not.
type stored struct {
	Key   value  `json:"key"`
	Hex   string `json:"hex"`
	Flags uint32 `json:"flags"`
	Value *value `json:"value"` // in place of Hex and Flags
	Miss  bool   `json:"miss"`
}

// change is what the runner stores once the key When has a value.
type change struct {
	When value  `json:"when"`
	Set  stored `json:"set"`
}

// server is what is at the other end of the socket: a script, or the real sidecar behind a
// proxy, or nothing.
type server struct {
	Script [][]act
	Proxy  *proxied
	None   bool
}

// cuts says whether a connection of the conversation is cut.
func (c *conversation) cuts() bool {
	return slices.ContainsFunc(c.Server.Script, func(acts []act) bool { return cutOf(acts) > 0 })
}

// pings says whether a step of the conversation's calls is a PING.
func (c *conversation) pings() bool {
	return slices.ContainsFunc(c.Calls, func(s step) bool {
		return s.Do == "ping" || slices.ContainsFunc(s.Together, func(one call) bool { return one.Do == "ping" })
	})
}

// cutOf returns after how many bytes a connection is cut; zero: it is not.
func cutOf(acts []act) int {
	for i := range acts {
		if acts[i].Cut > 0 {
			return acts[i].Cut
		}
	}
	return 0
}

func (s *server) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"sidecar"`:
		s.Proxy = &proxied{}
		return nil
	case `"none"`:
		s.None = true
		return nil
	}
	var is struct {
		Script [][]act  `json:"script"`
		Proxy  *proxied `json:"proxy"`
	}
	err := strict(b, &is)
	s.Script, s.Proxy = is.Script, is.Proxy
	return err
}

// strict decodes JSON and refuses fields that do not exist.
func strict(b []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	return d.Decode(to)
}

// load reads the conversations. only selects those whose name contains it.
func load(only string) ([]*conversation, error) {
	entries, err := files.ReadDir("conversations")
	if err != nil {
		return nil, err
	}
	var all []*conversation
	names := map[string]bool{}
	for _, e := range entries {
		b, err := files.ReadFile(path.Join("conversations", e.Name()))
		if err != nil {
			return nil, err
		}
		var raw []json.RawMessage
		if err := json.Unmarshal(b, &raw); err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), err)
		}
		for _, r := range raw {
			c := &conversation{Client: defaults}
			if err := strict(r, c); err != nil {
				return nil, fmt.Errorf("%s, after %d conversations: %w", e.Name(), len(all), err)
			}
			if names[c.Name] {
				return nil, fmt.Errorf("%s: two conversations are named %q", e.Name(), c.Name)
			}
			names[c.Name] = true
			if strings.Contains(c.Name, only) {
				all = append(all, c)
			}
		}
	}
	return all, nil
}

// steps returns the calls for one player: every step as often as it is to be made, and
// prefix before all keys.
func (c *conversation) steps(prefix string) []step {
	var out []step
	for _, s := range c.Calls {
		s.call = s.prefixed(prefix)
		s.Together = slices.Clone(s.Together)
		for i := range s.Together {
			s.Together[i] = s.Together[i].prefixed(prefix)
		}
		n := max(1, s.Repeat)
		s.Repeat = 0
		out = append(out, slices.Repeat([]step{s}, n)...)
	}
	return out
}

func (c call) prefixed(prefix string) call {
	if c.Key != nil {
		k := c.Key.prefixed(prefix)
		c.Key = &k
	}
	c.Keys = slices.Clone(c.Keys)
	for i, k := range c.Keys {
		c.Keys[i] = k.prefixed(prefix)
	}
	for _, v := range []**value{&c.Value, &c.Load, &c.Until} {
		if *v != nil {
			spelled := **v
			spelled.spell()
			*v = &spelled
		}
	}
	if c.Want != nil && c.Want.Value != nil {
		w, v := *c.Want, *c.Want.Value
		v.spell()
		w.Value = &v
		c.Want = &w
	}
	return c
}

func (v value) prefixed(prefix string) value {
	v.spell()
	switch {
	case v.Text != nil && *v.Text != "": // a key of no bytes is to be refused
		text := prefix + *v.Text
		v.Text = &text
	case v.Bin != nil:
		bin := hex.EncodeToString([]byte(prefix)) + *v.Bin
		v.Bin = &bin
	}
	return v
}
