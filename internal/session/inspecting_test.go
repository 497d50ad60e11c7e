package session_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestSlowLongKey checks that the list of slow calls does not keep a key that is too long:
// it comes with an MGET whose other key takes a while.
func TestSlowLongKey(t *testing.T) {
	o := onehost.NewOrigin(inspect.SlowThreshold)
	cfg := onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.Origin = o.ReadOnly() })}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		c := h.App()
		c.Call(wire.Request{Op: wire.OpMGet, Keys: [][]byte{make([]byte, 64<<10), []byte("k")}})
		var a wire.Slow
		r := c.Call(wire.Request{Op: wire.OpSlow})
		if err := wire.UnmarshalBody(r.Body, &a); err != nil {
			t.Fatal(r.Err(), err)
		}
		if list := a.Requests; len(list) != 1 || len(list[0].Key) != kv.MaxKeyLen || list[0].Keys != 2 || list[0].Op != "MGET" {
			t.Errorf("%d calls: %.100v", len(list), list)
		}
	})
}

// TestKeysBound checks that one request looks at a bounded number of entries, and that one
// at a time runs.
func TestKeysBound(t *testing.T) {
	const stored = 40_000
	doors.Virtually(t, onehost.Config{L2Size: 64 << 20}, func(t *testing.T, h *doors.Host) {
		for i := range stored {
			h.Set(fmt.Sprint(i), "")
		}
		c := h.App()
		q, pages := wire.Request{Op: wire.OpKeys, Key: []byte("none")}, 0
		for a := (wire.KeysPage{Cursor: []byte{}}); a.Cursor != nil; pages++ {
			r := c.Call(q)
			if a = (wire.KeysPage{}); wire.UnmarshalBody(r.Body, &a) != nil || len(a.Keys) != 0 {
				t.Fatalf("%v, %+v", r.Err(), a)
			}
			q.Token = a.Cursor
		}
		if pages < stored/(1<<15)+1 {
			t.Errorf("%d entries are looked at by %d requests", stored, pages)
		}

		h.Admin.Listing <- struct{}{} // as a request that runs
		if r := c.Call(wire.Request{Op: wire.OpKeys, TimeoutMS: 50}); r.Status != wire.Busy {
			t.Errorf("a second request: %s %s", r.Status, r.Message)
		}
		time.AfterFunc(time.Second, func() { <-h.Admin.Listing })
		began := time.Now()
		if r := c.Call(wire.Request{Op: wire.OpKeys, TimeoutMS: 5000}); r.Status != wire.OK || time.Since(began) < time.Second {
			t.Errorf("the next request: %s %s after %v", r.Status, r.Message, time.Since(began))
		}
	})
}
