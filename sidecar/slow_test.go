package sidecar

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/slow"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// slowCalls asks for the slow calls of a host.
func (c *rawConn) slowCalls(q wire.Request) (a wire.Slow) {
	c.t.Helper()
	q.Op = wire.OpSlow
	r := c.call(&q)
	if r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
	if err := wire.UnmarshalBody(r.Body, &a); err != nil {
		c.t.Fatal(err)
	}
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

// TestSlow loads keys of two hosts through one of them, from an origin that takes a while.
// The host of the app lists its requests with what they waited for, and each owner its
// loads. Fast requests are not listed.
func TestSlow(t *testing.T) {
	const takes = 5 * slow.Threshold
	origin := own(func(ctx context.Context, key []byte) (loader.Value, error) {
		time.Sleep(takes) // the work of the origin
		if string(key) == "fails" {
			return loader.Value{}, errors.New("secret details")
		}
		return loader.Value{Bytes: key}, nil
	})
	cfg := func(node string, join ...string) Config {
		return Config{
			Node: node, Bind: "127.0.0.1:0", L1Size: 1 << 20, Join: join,
			Namespaces: map[string]Namespace{"db": {Origin: origin}},
		}
	}
	a := &host{Sidecar: start(t, cfg("a"))}
	other := &host{Sidecar: start(t, cfg("b", a.engine.Node.GossipAddress()))}
	settled(t, a, other)
	keyOf := func(h *host) []byte {
		for i := 0; ; i++ {
			key := fmt.Append(nil, "key", i)
			if h.engine.Node.OwnershipEpoch(a.engine.Names.Hash(b("db"), key).Partition()) != 0 {
				return key
			}
		}
	}
	app := dial(t, a.Sidecar)
	mine, theirs := keyOf(a), keyOf(other)
	for _, key := range [][]byte{mine, theirs, mine, theirs} { // again: hits
		if r := app.call(&wire.Request{Op: wire.OpGet, Namespace: b("db"), Key: key}); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	app.call(&wire.Request{Op: wire.OpDelete, Namespace: b("db"), Keys: [][]byte{mine, theirs}})
	app.call(&wire.Request{Op: wire.OpMGet, Namespace: b("db"), Keys: [][]byte{theirs, mine}})

	before := time.Now()
	here := app.slowCalls(wire.Request{Options: wire.All})
	find := func(list []wire.SlowCall, op string, key []byte) *wire.SlowCall {
		i := slices.IndexFunc(list, func(c wire.SlowCall) bool { return c.Op == op && string(c.Key) == string(key) })
		if i < 0 {
			t.Fatalf("no %s of %s among %+v", op, key, list)
		}
		c := &list[i]
		if c.TookUS < uint64(takes.Microseconds()) || c.Namespace != "db" || c.Hash != uint64(a.engine.Names.Hash(b("db"), key)) {
			t.Errorf("%+v", c)
		}
		if began := time.UnixMilli(int64(c.BeganMS)); began.After(before) || before.Sub(began) > time.Minute {
			t.Errorf("%s of %s began at %v", op, key, began)
		}
		return c
	}
	c := find(here.Requests, "GET", mine)
	partOf(t, c, slow.Load)
	if c.Result != "OK" || c.Keys != 1 {
		t.Errorf("%+v", c)
	}
	c = find(here.Requests, "GET", theirs)
	if p := partOf(t, c, slow.Owner); p.Node != "b" {
		t.Errorf("it has waited for %q", p.Node)
	}
	c = find(here.Requests, "MGET", theirs)
	partOf(t, c, slow.Owner)
	partOf(t, c, slow.Load)
	if c.Keys != 2 {
		t.Errorf("%+v", c)
	}
	c = find(here.Loads, "LOAD", mine)
	partOf(t, c, slow.Origin)
	if c.Result != "loaded" {
		t.Errorf("%+v", c)
	}
	for _, c := range here.Requests {
		if c.TookUS < here.ThresholdMS*1000 {
			t.Errorf("a fast request is listed: %+v", c)
		}
	}
	atOwner := dial(t, other.Sidecar).slowCalls(wire.Request{Namespace: b("db")})
	find(atOwner.Loads, "LOAD", theirs)
	if len(atOwner.Requests) != 0 {
		t.Errorf("another host's requests are listed: %+v", atOwner.Requests)
	}
	if got := app.slowCalls(wire.Request{Namespace: b("default")}); len(got.Requests)+len(got.Loads) != 0 {
		t.Errorf("another namespace has %+v", got)
	}

	app.call(&wire.Request{Op: wire.OpGet, Namespace: b("db"), Key: b("fails")})
	var loads []wire.SlowCall
	for _, h := range []*host{a, other} {
		loads = append(loads, dial(t, h.Sidecar).slowCalls(wire.Request{Options: wire.All}).Loads...)
	}
	before = time.Now()
	if c := find(loads, "LOAD", b("fails")); c.Result != "failed" {
		t.Errorf("%+v", c)
	}
}
