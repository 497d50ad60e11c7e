package main

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// want waits for requests, in any order.
func (c *conn) want(all []asks, oneRead bool) error {
	left := slices.Clone(all)
	read := 0
	for len(left) > 0 {
		a, err := c.next()
		if err != nil {
			return err
		}
		if c.isLook(left, a) {
			continue
		}
		at, why := -1, error(nil)
		for i := range left {
			if err := c.compare(&left[i], a); err == nil {
				at = i
				break
			} else if why == nil {
				why = err
			}
		}
		if at < 0 {
			return fmt.Errorf("%w\n    got  %s", why, message(a.frame))
		}
		if oneRead && read != 0 && (a.began != read || a.read != read) {
			return fmt.Errorf("the calls began together, but %s came with a later write", message(a.frame))
		}
		read = a.read
		if name := left[at].As; name != "" {
			c.s.note(func() { c.s.named[name] = a })
		}
		left = slices.Delete(left, at, at+1)
	}
	return nil
}

// isLook reports whether a request is a GET of a key that a LEASE is wanted for. A client
// may look before it asks for the lease; the answer is a miss.
func (c *conn) isLook(left []asks, a *asked) bool {
	return a.Op == wire.OpGet && slices.ContainsFunc(left, func(w asks) bool {
		return w.Op == "LEASE" && (w.Key == nil || bytes.Equal(w.Key.bytes(), a.Key))
	}) && c.send(a, &wire.Reply{Status: wire.Miss}) == nil
}

// quiet are the options that say nothing about the outcome of a request.
const quiet = wire.Attest | wire.Share

var optionNames = []string{
	"fresh", "no_load", "stale_ok", "ack_all", "soft", "cluster", "all", "attest", "abandon", "settle", "undo", "force",
	"end", "share", "create", "unsigned", "down", "retouch", "touch", "unread", "no_value", "claim",
	"cache_only",
}

// compare says in what a request differs from what is wanted.
func (c *conn) compare(w *asks, a *asked) error {
	if a.Op.String() != w.Op {
		return fmt.Errorf("the client sends %s", a.Op)
	}
	most := cmp.Or(w.TimeoutMS, c.s.of.Client.TimeoutMS)
	if a.Op == wire.OpLease || a.Op == wire.OpFill {
		most = wire.MaxTimeout // a load may take longer than a call
	}
	if a.TimeoutMS == 0 || int(a.TimeoutMS) > most {
		return fmt.Errorf("timeout_ms is %d, want 1 to %d: send the call's timeout along", a.TimeoutMS, most)
	}
	var options wire.Options
	for _, name := range w.Options {
		options |= 1 << slices.Index(optionNames, name)
	}
	if a.Options&^quiet != options&^quiet {
		return fmt.Errorf("options are %#x, want %#x, which is %v", a.Options, options, w.Options)
	}
	for _, f := range []func(*asks, *asked) error{c.names, c.value, c.numbers, c.until} {
		if err := f(w, a); err != nil {
			return err
		}
	}
	return nil
}

// names compares namespace, keys and token.
func (c *conn) names(w *asks, a *asked) error {
	ns := c.namespace
	if a.Namespace != nil {
		ns = string(a.Namespace)
	}
	if want := c.s.of.Client.Namespace; ns != want && a.Op != wire.OpPing {
		return fmt.Errorf("the namespace is %q, want %q", ns, want)
	}
	if w.Key != nil {
		w.Keys = []value{*w.Key}
	}
	got := a.Keys
	if len(got) == 0 && a.Key != nil {
		got = [][]byte{a.Key}
	}
	if w.Keys != nil && len(got) != len(w.Keys) {
		return fmt.Errorf("%d keys, want %d", len(got), len(w.Keys))
	}
	for i := range w.Keys {
		if key := w.Keys[i].bytes(); !bytes.Equal(got[i], key) {
			return fmt.Errorf("a key is %s, want %s", brief(got[i]), brief(key))
		}
	}
	if w.Token != nil && hex.EncodeToString(a.Token) != *w.Token {
		return fmt.Errorf("the token is %x, want %s", a.Token, *w.Token)
	}
	return nil
}

func (c *conn) value(w *asks, a *asked) error {
	if w.Flags != nil && a.Flags != *w.Flags {
		return fmt.Errorf("flags are %d, want %d", a.Flags, *w.Flags)
	}
	if w.Value == nil {
		return nil
	}
	if err := w.Value.is(a.Value, a.Flags); err != nil {
		return fmt.Errorf("the value: %w", err)
	}
	return nil
}

func (c *conn) numbers(w *asks, a *asked) error {
	switch {
	case w.TTLMS != nil && a.TTLMS != *w.TTLMS:
		return fmt.Errorf("ttl_ms is %d, want %d (-1: left out)", a.TTLMS, *w.TTLMS)
	case w.Mode != nil && uint8(a.Mode) != *w.Mode:
		return fmt.Errorf("mode is %d, want %d", a.Mode, *w.Mode)
	case w.Compare != nil && a.Compare != *w.Compare:
		return fmt.Errorf("compare is %d, want %d", a.Compare, *w.Compare)
	case w.Delta != nil && number(a, a.Delta) != w.Delta.String():
		return fmt.Errorf("delta is %s, want %s", number(a, a.Delta), *w.Delta)
	case w.Initial != nil:
		got := `"none"`
		if a.Create {
			got = number(a, a.Initial)
		}
		if want := string(*w.Initial); got != want {
			return fmt.Errorf("initial is %s, want %s", got, want)
		}
	}
	return nil
}

// number returns a number of an INCR in decimal.
func number(a *asked, n int64) string {
	if a.Has(wire.Unsigned) {
		return strconv.FormatUint(uint64(n), 10)
	}
	return strconv.FormatInt(n, 10)
}

// until checks the moment at which a write is given up. Only a client that reads the clock
// of the sidecar may send one, and its own wait ends later.
func (c *conn) until(_ *asks, a *asked) error {
	switch now := uint64(kv.NewSystemClock().Read().Boot); {
	case a.UntilNS == 0:
	case !c.boot:
		return fmt.Errorf("until_ns is %d, though HELLO's answer has no boot clock", a.UntilNS)
	case a.UntilNS > now+uint64(a.TimeoutMS)*1e6:
		return fmt.Errorf("until_ns is %d, the clock is at %d: that is more than timeout_ms later", a.UntilNS, now)
	}
	return nil
}

// message returns a frame's array in the JSON of internal/wire/testdata/messages.json.
func message(frame []byte) string {
	x, err := decodeMsgpack(frame)
	if err != nil {
		return fmt.Sprintf("%x (%v)", frame, err)
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(jsonable(x)); err != nil {
		return fmt.Sprintf("%x (%v)", frame, err)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func jsonable(x any) any {
	switch x := x.(type) {
	case []byte:
		return map[string]string{"bin": short(hex.EncodeToString(x))}
	case []any:
		for i := range x {
			x[i] = jsonable(x[i])
		}
	case string:
		return short(x)
	case map[string]any:
		for k, v := range x {
			x[k] = jsonable(v)
		}
	case map[any]any:
		m := map[string]any{}
		for k, v := range x {
			m[fmt.Sprint(k)] = jsonable(v)
		}
		return m
	}
	return x
}

// short shortens a text that may be very long.
func short(s string) string {
	const most = 160
	if len(s) > most {
		return fmt.Sprintf("%s… (%d)", s[:most], len(s))
	}
	return s
}
