package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// act is one step of a script: what the server waits for, or does. One of its fields is set,
// with those that belong to it.
type act struct {
	Maybe bool   `json:"maybe"` // first of a connection: the client need not open it
	Hello *hello `json:"hello"` // first of a connection; a usual one may be left out
	Want  *asks  `json:"want"`  // the next request
	// The next requests, in any order; with OneWrite those of a client whose calls of one tick
	// share a write come with one read.
	All      []asks `json:"all"`
	OneWrite bool   `json:"one_write"`
	// Answer names the request that is answered with Reply. Of the answer, only the First bytes
	// are sent; More adds elements to it, OtherID gives it another id.
	Answer  string `json:"answer"`
	Reply   reply  `json:"reply"`
	First   int    `json:"first"`
	More    bool   `json:"more"`
	OtherID bool   `json:"other_id"`

	Serve *asks `json:"serve"` // answer all further requests with Reply
	// With Serve: of the whole connection, so many bytes are read, HELLO among them, and nothing
	// more. What the client's system took whole behind them is not answered. No key of the
	// conversation may come a second time, over any connection.
	Cut int `json:"cut"`

	Raw     string `json:"raw"`     // bytes to send, hex
	Leave   bool   `json:"leave"`   // answer LEAVING
	Deaf    bool   `json:"deaf"`    // read nothing more: the client's next write fails
	Await   string `json:"await"`   // until a request of another connection has that name
	Away    bool   `json:"away"`    // take the socket away for good
	AwayMS  int    `json:"away_ms"` // take the socket away, for so long
	PauseMS int    `json:"pause_ms"`
	Close   bool   `json:"close"`
	// Closed waits until the client closes the connection, at most for WithinMS.
	Closed   bool `json:"closed"`
	WithinMS int  `json:"within_ms"`
}

// hello is what the server answers to HELLO.
type hello struct {
	Value  int    `json:"value"`  // max_value
	Boot   bool   `json:"boot"`   // show the boot clock
	Silent bool   `json:"silent"` // do not answer
	Reply  *reply `json:"reply"`  // an error in place of the greeting
	Raw    string `json:"raw"`    // other bytes in place of the greeting
}

// asks says what a request has. What is left out may be anything, but for options: only
// those that say nothing about the outcome may come beside the ones listed.
type asks struct {
	As        string           `json:"as"` // the name for the answer
	Op        string           `json:"op"`
	Key       *value           `json:"key"`
	Keys      []value          `json:"keys"`
	Value     *value           `json:"value"` // with its mark
	Flags     *uint32          `json:"flags"`
	TTLMS     *int64           `json:"ttl_ms"` // -1: left out
	Mode      *uint8           `json:"mode"`
	Compare   *uint64          `json:"compare"`
	Options   []string         `json:"options"`
	Delta     *json.Number     `json:"delta"`
	Initial   *json.RawMessage `json:"initial"`    // "none", or a number
	Token     *string          `json:"token"`      // hex
	TimeoutMS int              `json:"timeout_ms"` // at most, and not 0
}

// reply is an answer, or an item of one.
type reply struct {
	Status  json.RawMessage `json:"status"` // a name, or a number; left out: OK
	Value   *value          `json:"value"`  // with its mark
	Hex     *string         `json:"hex"`    // in place of Value
	Flags   *uint32         `json:"flags"`
	Version *uint64         `json:"version"`
	TTLMS   int64           `json:"ttl_ms"`
	AgeMS   uint64          `json:"age_ms"`
	Why     uint8           `json:"why"`
	Token   string          `json:"token"` // hex
	Number  json.Number     `json:"number"`
	Message string          `json:"message"`
	Items   []reply         `json:"items"`
}

// scriptedVersion is the version in answers that name none.
const scriptedVersion = 7

// wire returns the message.
func (r *reply) wire() (wire.Reply, error) {
	status, err := statusOf(r.Status)
	if err != nil {
		return wire.Reply{}, err
	}
	w := wire.Reply{
		Status: status, TTLMS: r.TTLMS, AgeMS: r.AgeMS, Why: wire.Why(r.Why),
		Message: []byte(r.Message), Version: scriptedVersion, Event: scriptedVersion + 1, Source: wire.SourceL2,
	}
	if w.Message == nil || r.Message == "" {
		w.Message = []byte("scripted")
	}
	if r.Number != "" {
		n, err := numberOf(r.Number)
		if err != nil {
			return w, err
		}
		w.Number, w.Unsigned = n, n < 0 && r.Number[0] != '-'
	}
	if r.Version != nil {
		w.Version = *r.Version
	}
	if w.Value, w.Flags, err = r.Value.encode(); err != nil {
		return w, err
	}
	if r.Hex != nil {
		if w.Value, err = hex.DecodeString(*r.Hex); err != nil {
			return w, err
		}
	}
	if r.Flags != nil {
		w.Flags = *r.Flags
	}
	if w.Token, err = hex.DecodeString(r.Token); err != nil {
		return w, err
	}
	for i := range r.Items {
		item, err := r.Items[i].wire()
		if err != nil {
			return w, err
		}
		w.Items = append(w.Items, item)
	}
	return w, nil
}

// numberOf returns a number of up to 64 bits, whose sign is lost if it needs them all.
func numberOf(s json.Number) (int64, error) {
	if n, err := strconv.ParseUint(s.String(), 10, 64); err == nil {
		return int64(n), nil
	}
	return s.Int64()
}

func statusOf(raw json.RawMessage) (wire.Status, error) {
	if raw == nil {
		return wire.OK, nil
	}
	var n uint8
	if json.Unmarshal(raw, &n) == nil {
		return wire.Status(n), nil
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return 0, err
	}
	for s := range wire.Status(wire.StatusCount) {
		if s.String() == name {
			return s, nil
		}
	}
	return 0, fmt.Errorf("there is no status %q", name)
}
