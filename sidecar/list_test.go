package sidecar

import (
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// page asks for one page of keys.
func (c *rawConn) page(q wire.Request) (a wire.KeysPage) {
	c.t.Helper()
	q.Op = wire.OpKeys
	r := c.call(&q)
	if r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
	if err := wire.UnmarshalBody(r.Body, &a); err != nil {
		c.t.Fatal(err)
	}
	return a
}

// list asks for all pages of keys.
func (c *rawConn) list(q wire.Request) map[string]wire.KeyInfo {
	c.t.Helper()
	all := map[string]wire.KeyInfo{}
	for {
		a := c.page(q)
		if q.Limit > 0 && len(a.Keys) > int(q.Limit) {
			c.t.Errorf("a page of %d keys, limit %d", len(a.Keys), q.Limit)
		}
		for _, k := range a.Keys {
			if _, twice := all[string(k.Key)]; twice {
				c.t.Errorf("%s is listed twice", k.Key)
			}
			all[string(k.Key)] = k
		}
		if q.Token = a.Cursor; q.Token == nil {
			return all
		}
	}
}

// TestKeys lists the keys of two hosts. Each host lists its own share, in pages.
func TestKeys(t *testing.T) {
	_, other, app, keys := startPair(t, 300)
	const more = 1000
	for i := range more {
		q := &wire.Request{Op: wire.OpSet, Key: fmt.Appendf(nil, "more:%d", i), Value: make([]byte, i%7), TTLMS: 60_000}
		if r := app.call(q); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	for _, limit := range []uint32{1, 10, 1000, 0} {
		here := app.list(wire.Request{Limit: limit})
		there := dial(t, other.Sidecar).list(wire.Request{Limit: limit})
		for k := range here {
			if _, both := there[k]; both {
				t.Errorf("both hosts list %s", k)
			}
		}
		if len(here)+len(there) != len(keys)+more || len(here) == 0 {
			t.Errorf("limit %d: %d and %d keys, of %d", limit, len(here), len(there), len(keys)+more)
		}
		for _, k := range keys {
			if _, ok := there[string(k)]; !ok {
				t.Fatalf("the owner does not list %s", k)
			}
		}
	}
	for k, info := range app.list(wire.Request{Key: b("more:1")}) {
		r := app.call(&wire.Request{Op: wire.OpGet, Key: b(k)})
		if !strings.HasPrefix(k, "more:1") || info.Size != uint64(len(r.Value)) || info.Version != r.Version ||
			info.TTLMS == 0 || info.TTLMS > 60_000 || info.Memory < info.Size+uint64(len(k)) {
			t.Errorf("%s: %+v, GET gives %+v", k, info, r)
		}
	}
	if got := app.list(wire.Request{Namespace: b("new")}); len(got) != 0 {
		t.Errorf("a namespace without keys has %v", got)
	}

	// A cursor belongs to one process.
	cursor := app.page(wire.Request{Limit: 1}).Cursor
	r := dial(t, other.Sidecar).call(&wire.Request{Op: wire.OpKeys, Token: cursor})
	if r.Status != wire.BadRequest || !strings.Contains(string(r.Message), "begin again without a cursor") {
		t.Errorf("another host's cursor: %s %s", r.Status, r.Message)
	}
	wrong := append([]byte{}, cursor...)
	wrong[8] = 0xff // the shard
	for _, q := range []wire.Request{
		{Token: wrong}, {Token: cursor[1:]}, {Token: []byte{}}, {Key: make([]byte, 1025)}, {Namespace: b("NO")}, {Limit: 1001},
	} {
		q.Op = wire.OpKeys
		if r := app.call(&q); r.Status != wire.BadRequest {
			t.Errorf("%+v: %s %s", q, r.Status, r.Message)
		}
	}
}

// TestKeysBound checks that one request looks at a bounded number of entries, and that
// one at a time runs.
func TestKeysBound(t *testing.T) {
	s := start(t, Config{L2Size: 64 << 20})
	c := dial(t, s)
	const keys = 100_000
	for i := 0; i < keys; i += 100 {
		for j := range 100 {
			c.send(&wire.Request{Op: wire.OpSet, Key: fmt.Append(nil, i+j)})
		}
		for range 100 {
			c.receive(wire.OpSet)
		}
	}
	q, pages := wire.Request{Key: b("none")}, 0
	for a := (wire.KeysPage{Cursor: []byte{}}); a.Cursor != nil; pages++ {
		a = c.page(q)
		if q.Token = a.Cursor; len(a.Keys) != 0 {
			t.Fatalf("%+v", a)
		}
	}
	if pages < keys/(1<<15)+1 {
		t.Errorf("%d entries are looked at by %d requests", keys, pages)
	}

	s.engine.Inspection.Listing <- struct{}{} // as a request that runs
	if r := c.call(&wire.Request{Op: wire.OpKeys, TimeoutMS: 50}); r.Status != wire.Busy {
		t.Errorf("a second request: %s %s", r.Status, r.Message)
	}
	<-s.engine.Inspection.Listing
	if r := c.call(&wire.Request{Op: wire.OpKeys, TimeoutMS: 5000}); r.Status != wire.OK {
		t.Errorf("the next request: %s %s", r.Status, r.Message)
	}
}

// TestKeysRights checks that only administrators of a namespace see its keys, also if no
// access is configured.
func TestKeysRights(t *testing.T) {
	for name, cfg := range map[string]Config{
		"rules":    {Access: map[string]Grants{"mine": {Admin: []string{"99"}}, "theirs": {Write: []string{"99"}}}},
		"no rules": {},
	} {
		s := start(t, cfg)
		c := s.doors.Of(s.engine.Access.Caller(unixsock.Peer{UID: 99, GID: 99}), nil)
		for _, ns := range []string{"mine", "theirs", "new"} {
			err := c.Refusal(&wire.Request{Op: wire.OpKeys, Namespace: b(ns)})
			if want := name == "rules" && ns == "mine"; (err == nil) != want {
				t.Errorf("%s: KEYS in %s: %v", name, ns, err)
			}
		}
	}
}
