package session_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// watcher follows a host as an app does.
type watcher struct {
	*doors.Conn
	q wire.Request
}

func watching(c *doors.Conn, q wire.Request) *watcher {
	c.T.Helper()
	q.Op, q.TimeoutMS = wire.OpWatch, 60_000
	w := &watcher{c, q}
	if a := w.next(); !a.Reset {
		c.T.Fatalf("the first answer is %+v, want a reset", a)
	}
	return w
}

func (w *watcher) next() (a wire.Watched) {
	w.T.Helper()
	r := w.Call(w.q)
	if err := wire.UnmarshalBody(r.Body, &a); err != nil {
		w.T.Fatal(r.Err(), err)
	}
	if !a.Reset && (a.After != w.q.Seq || a.Epoch != w.q.Epoch) || a.Seq > a.Head {
		w.T.Fatalf("after %d of %d: %+v", w.q.Seq, w.q.Epoch, a)
	}
	w.q.Epoch, w.q.Seq = a.Epoch, a.Seq
	return a
}

// event is an event of a stream, in a form that tests compare.
type event struct {
	kind    uint8
	hash    kv.Hash
	version uint64
	flushed string // namespace
}

// events returns the events of the next answer.
func (w *watcher) events() (list []event) {
	w.T.Helper()
	a := w.next()
	if err := a.Events.Each(func(kind uint8, hash, version uint64, d *wire.EventDetail) {
		e := event{kind: kind, hash: kv.Hash(hash), version: version}
		if d != nil {
			e.flushed = d.Namespace
		}
		list = append(list, e)
	}); err != nil {
		w.T.Fatal(err)
	}
	return list
}

// TestWatch checks that a host that is alone reports every change, in order, with the
// version that the writer was told.
func TestWatch(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		writer, reader := h.App(), h.App()
		w, all := watching(reader, wire.Request{}), watching(reader, wire.Request{Options: wire.All})
		var want, further []event
		change := func(key string, q wire.Request) {
			t.Helper()
			r := writer.Call(q)
			e := event{wire.EventChanged, h.Namespaces.Hash([]byte(namespaces.Default), []byte(key)), r.Version, ""}
			switch {
			case q.Op == wire.OpDelete:
				e.version = r.Items[0].Version
			case q.Op == wire.OpFlush:
				e = event{wire.EventFlushed, 0, r.Version, key}
			case r.Event != 0:
				e.version = r.Event
			}
			if e.version == 0 {
				t.Fatalf("%s: %s %s", q.Op, r.Status, r.Message)
			}
			if further = append(further, e); key != "other" {
				want = append(want, e)
			}
		}
		change("a", wire.Request{Op: wire.OpSet, Key: []byte("a"), Value: []byte("1"), TTLMS: wire.TTLDefault})
		change("a", wire.Request{Op: wire.OpIncr, Key: []byte("a"), Delta: 1, TTLMS: wire.TTLDefault})
		change("a", wire.Request{Op: wire.OpTouch, Key: []byte("a"), TTLMS: 1000})
		change("none", wire.Request{Op: wire.OpDelete, Keys: doors.Keys("none")})
		change("other", wire.Request{Op: wire.OpFlush, Namespace: []byte("other")})
		change("default", wire.Request{Op: wire.OpFlush})
		change("", wire.Request{Op: wire.OpFlush, Options: wire.All})
		if got := w.events(); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
		if got := all.events(); !slices.Equal(got, further) {
			t.Errorf("all namespaces: %v", got)
		}

		// Without events there is a heartbeat, at once or after the wait.
		for _, wait := range []time.Duration{0, time.Second} {
			w.q.WaitMS = uint32(wait.Milliseconds())
			began := time.Now()
			if got := w.events(); len(got) > 0 || time.Since(began).Truncate(100*time.Millisecond) != wait {
				t.Errorf("%v after %v, want a heartbeat after %v", got, time.Since(began), wait)
			}
		}
		// An event ends the wait.
		w.q.WaitMS = 30_000
		began := time.Now()
		reader.Begin(w.q)
		change("b", wire.Request{Op: wire.OpSet, Key: []byte("b"), TTLMS: wire.TTLDefault})
		if r := reader.Receive(wire.OpWatch); r.Status != wire.OK || time.Since(began) > 100*time.Millisecond {
			t.Errorf("%v after %v", r.Err(), time.Since(began))
		}
		if r := reader.Call(wire.Request{Op: wire.OpWatch, Namespace: []byte("Bad")}); r.Status != wire.BadRequest {
			t.Errorf("a bad namespace: %s", r.Status)
		}
	})
}

// TestWatchesAreBounded checks that the number of waiting requests is bounded, for a
// connection and for a host, and that they end when apps are told to leave.
func TestWatchesAreBounded(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		w := watching(h.App(), wire.Request{})
		w.q.WaitMS = 50_000
		for range engine.MaxConnWatch + 1 {
			w.Begin(w.q)
		}
		if r := w.Receive(wire.OpWatch); r.Status != wire.Busy {
			t.Errorf("one more than %d: %s, want BUSY", engine.MaxConnWatch, r.Status)
		}
		h.Budget.Open("others", "").AcquireAnyway(quota.Watches, engine.MaxWatches)
		other := h.App()
		if r := other.Call(wire.Request{Op: wire.OpWatch}); r.Status != wire.Busy {
			t.Errorf("one more than %d on a host: %s, want BUSY", engine.MaxWatches, r.Status)
		}
		h.Budget.Open("others", "").AcquireAnyway(quota.Watches, -engine.MaxWatches)
		if r := other.Call(wire.Request{Op: wire.OpWatch}); r.Status != wire.OK {
			t.Errorf("with room again: %s %s", r.Status, r.Message)
		}
		synctest.Wait() // all wait
		began := time.Now()
		h.Sessions.Leave(0)
		for range engine.MaxConnWatch {
			if r := w.Receive(wire.OpWatch); r.Status != wire.OK {
				t.Errorf("at the end: %s %s", r.Status, r.Message)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("they end after %v", took)
		}
		if n := h.Budget.Taken(quota.Watches); n != 0 {
			t.Errorf("%d requests wait", n)
		}
	})
}

// TestWatchTellsNoOthersFlushes checks that a WATCH of all namespaces does not report a
// flush of a namespace that its caller may not read, even if the request names that
// namespace.
func TestWatchTellsNoOthersFlushes(t *testing.T) {
	h := doors.Serve(t, onehost.Config{Access: access.Config{Namespaces: map[string]access.Grants{
		"mine": {Read: []string{"99"}}, "theirs": {Read: []string{"5"}}, access.Others: {Read: []string{}},
	}}})
	w := watching(h.User(99), wire.Request{Namespace: []byte("theirs"), Options: wire.All})
	writer := h.App()
	for _, name := range []string{"theirs", "mine"} {
		onehost.Is(t, "FLUSH "+name, writer.Call(wire.Request{Op: wire.OpFlush, Namespace: []byte(name)}), wire.OK, "")
	}
	if got := w.events(); len(got) != 1 || got[0].flushed != "mine" {
		t.Errorf("it is told of %v", fmt.Sprint(got))
	}
}
