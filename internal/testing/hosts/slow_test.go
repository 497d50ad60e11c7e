package hosts

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// slowCalls asks for the slow calls of a host.
func (c *rawConn) slowCalls(q wire.Request) (a wire.Slow) {
	c.t.Helper()
	q.Op = wire.OpSlow
	r := c.call(&q)
	if r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
	testenv.Must(c.t, wire.UnmarshalBody(r.Body, &a))
	return a
}

// partOf returns what a call waited for, and requires that it is most of the call's time.
func partOf(t *testing.T, c *wire.SlowCall, what string) wire.SlowPart {
	t.Helper()
	i := slices.IndexFunc(c.Parts, func(p wire.SlowPart) bool { return p.What == what })
	if i < 0 || c.Parts[i].TookUS < c.TookUS/2 || c.Parts[i].TookUS > c.TookUS {
		t.Errorf("%s of %s took %d us: it has waited for %+v, want %s", c.Op, c.Key, c.TookUS, c.Parts, what)
		return wire.SlowPart{}
	}
	return c.Parts[i]
}

// TestVirtualSlow loads keys of two hosts through one of them, from an origin that takes a while.
// The host of the app lists its requests with what they waited for, and each owner its
// loads. Fast requests are not listed.
func TestVirtualSlow(t *testing.T) {
	const takes = 5 * inspect.SlowThreshold
	o := newDatabase(always(takes / 2))
	withNodes(t, 2, o, Namespace{}, func(w *world) {
		a, other := w.nodes[0], w.nodes[1]
		mine, theirs := w.keysOf(a, 1)[0], w.keysOf(other, 1)[0]
		app, there := a.app(w.t), other.app(w.t)
		for _, key := range []string{mine, theirs, mine, theirs} { // again: hits
			o.set(key, []byte("v"))
			if r := app.call(&wire.Request{Op: wire.OpGet, Key: b(key)}); r.Status != wire.OK {
				t.Errorf("%s %s", r.Status, r.Message)
			}
		}
		app.call(&wire.Request{Op: wire.OpDelete, Keys: keysOf(mine, theirs)})
		app.call(&wire.Request{Op: wire.OpMGet, Keys: keysOf(theirs, mine)})

		find := func(list []wire.SlowCall, op, key string) *wire.SlowCall {
			t.Helper()
			i := slices.IndexFunc(list, func(c wire.SlowCall) bool { return c.Op == op && string(c.Key) == key })
			if i < 0 {
				t.Errorf("no %s of %s among %+v", op, key, list)
				return &wire.SlowCall{}
			}
			c := &list[i]
			if c.TookUS < uint64(takes.Microseconds()) || c.Namespace != "default" ||
				c.Hash != uint64(a.s.engine.Namespaces.Hash(b("default"), b(key))) {
				t.Errorf("%+v", c)
			}
			if ago := time.Since(time.UnixMilli(int64(c.BeganMS))); ago < takes || ago > 10*takes {
				t.Errorf("%s of %s began %v ago", op, key, ago)
			}
			return c
		}
		here := app.slowCalls(wire.Request{Options: wire.All})
		c := find(here.Requests, "GET", mine)
		partOf(t, c, inspect.Load)
		if c.Result != "OK" || c.Keys != 1 {
			t.Errorf("%+v", c)
		}
		c = find(here.Requests, "GET", theirs)
		if p := partOf(t, c, inspect.Owner); p.Node != other.name {
			t.Errorf("it has waited for %q", p.Node)
		}
		c = find(here.Requests, "MGET", theirs)
		partOf(t, c, inspect.Owner)
		partOf(t, c, inspect.Load)
		if c.Keys != 2 {
			t.Errorf("%+v", c)
		}
		c = find(here.Loads, "LOAD", mine)
		partOf(t, c, inspect.Origin)
		if c.Result != "loaded" {
			t.Errorf("%+v", c)
		}
		if n := len(here.Requests); n != 3 {
			t.Errorf("%d requests are listed, and 3 were slow: %+v", n, here.Requests)
		}
		atOwner := there.slowCalls(wire.Request{Namespace: b("default")})
		find(atOwner.Loads, "LOAD", theirs)
		if len(atOwner.Requests) != 0 {
			t.Errorf("another host's requests are listed: %+v", atOwner.Requests)
		}
		if got := app.slowCalls(wire.Request{Namespace: b("another")}); len(got.Requests)+len(got.Loads) != 0 {
			t.Errorf("another namespace has %+v", got)
		}

		o.takes = always(takes) // what fails has no second part
		o.fail(errors.New("secret details"))
		app.call(&wire.Request{Op: wire.OpGet, Key: b("fails")})
		loads := slices.Concat(
			app.slowCalls(wire.Request{Options: wire.All}).Loads, there.slowCalls(wire.Request{Options: wire.All}).Loads)
		if c := find(loads, "LOAD", "fails"); c.Result != "failed" {
			t.Errorf("%+v", c)
		}
	})
}
