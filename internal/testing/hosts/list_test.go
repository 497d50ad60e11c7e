package hosts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// page asks for one page of keys.
func (c *rawConn) page(q wire.Request) (a wire.KeysPage) {
	c.t.Helper()
	q.Op = wire.OpKeys
	r := c.call(&q)
	if r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
	testenv.Must(c.t, wire.UnmarshalBody(r.Body, &a))
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
	t.Parallel()
	testenv.Takes(t, 6*time.Second)
	_, other, app, keys := startPair(t, 300)
	const more = 300
	for i := range more {
		q := &wire.Request{Op: wire.OpSet, Key: fmt.Appendf(nil, "more:%d", i), Value: make([]byte, i%7), TTLMS: 600_000}
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
			info.TTLMS == 0 || info.TTLMS > 600_000 || info.Memory < info.Size+uint64(len(k)) {
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
