package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestWaitingRequestsTakeMemory has an app send more LEASEs that wait than there is memory for: with a
// goroutine each, or without. The others are BUSY at once.
func TestWaitingRequestsTakeMemory(t *testing.T) {
	t.Run("queued", func(t *testing.T) { waitingTakeMemory(t, 1<<20, 2<<10, 0) })
	t.Run("on goroutines", func(t *testing.T) { waitingTakeMemory(t, 8<<20, 20<<10, wire.StaleOK) })
}

func waitingTakeMemory(t *testing.T, size, each int64, o wire.Options) {
	cfg := longLeases
	cfg.BufferSize = size
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		holder, app := h.App(), h.App()
		if r := holder.Call(doors.LeaseOf("k", time.Minute)); r.Status != wire.Lease {
			t.Fatalf("LEASE: %s", r.Status)
		}
		const n = 450
		for range n {
			q := doors.LeaseOf("k", time.Hour)
			q.Options = o
			app.Begin(q)
		}
		settle()
		waits := h.Waiting.Load()
		if most := cfg.BufferSize / each * 3 / 4; waits > most || waits < most/2 {
			t.Errorf("%d of %d LEASEs wait, want at most %d", waits, n, most)
		}
		if used := h.Budget.Stats().Requests; used < waits*each {
			t.Errorf("%d bytes are charged for %d requests that wait", used, waits)
		}
		for range n - waits {
			if r := app.Receive(wire.OpLease); r.Status != wire.Busy || !strings.Contains(string(r.Message), "buffer_size") {
				t.Errorf("%s %s", r.Status, r.Message)
			}
		}
		app.Close()
		holder.Close()
		settle()
		if n := h.Budget.Stats().Total(); n != 0 {
			t.Errorf("%d bytes stay charged", n)
		}
	})
}

// TestGrowthTakesTurns appends to a long value while there is no memory for its copy, and then with.
func TestGrowthTakesTurns(t *testing.T) {
	doors.Virtually(t, onehost.Config{L2Size: 64 << 20, BufferSize: 8 << 20}, func(t *testing.T, h *doors.Host) {
		c := h.App()
		c.Set("k", make([]byte, 1<<20))
		grow := wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("y"), Mode: wire.ModeAppend, TTLMS: wire.TTLDefault}
		hog, most := h.Budget.Open("hog", ""), h.Budget.Size()-512<<10
		hog.Force(quota.ForAnswers, most)
		if r := c.Call(grow); r.Status != wire.Busy {
			t.Errorf("without memory: %s %s", r.Status, r.Message)
		}
		hog.Give(quota.ForAnswers, most)
		for range 100 { // some in each batch
			c.Begin(grow)
		}
		for range 100 {
			if r := c.Receive(wire.OpSet); r.Status != wire.OK {
				t.Fatalf("with memory: %s %s", r.Status, r.Message)
			}
		}
		if r := c.Get("k"); len(r.Value) != 1<<20+100 {
			t.Errorf("%s, %d bytes", r.Status, len(r.Value))
		}
		over := grow
		over.Value = make([]byte, 3<<20)
		if r := c.Call(over); r.Status != wire.TooLarge {
			t.Errorf("more than max_value: %s %s", r.Status, r.Message)
		}
	})
}

// TestWaitingMGetHoldsNoNamespace has an MGET wait for its turn to copy. Meanwhile the namespace that
// it reads becomes empty, and gives its slot to another name.
func TestWaitingMGetHoldsNoNamespace(t *testing.T) {
	doors.Virtually(t, onehost.Config{L2Size: 64 << 20, MaxNamespaces: 2}, func(t *testing.T, h *doors.Host) {
		c, other := h.App(), h.App()
		long := wire.Request{Op: wire.OpSet, Namespace: []byte("a"), Key: []byte("k"), Value: make([]byte, 1<<20)}
		onehost.Is(t, "SET", c.Call(long), wire.OK, "")
		turns := h.Budget.Open("hog", "")
		n := 0
		for ; turns.TryTurn(quota.CopyTurn); n++ {
		}
		c.Begin(wire.Request{Op: wire.OpMGet, Namespace: []byte("a"), Keys: doors.Keys("k")})
		settle()
		if h.Budget.WaitingTurns(quota.CopyTurn) != 1 {
			t.Fatal("the MGET does not wait for its turn")
		}
		gone := wire.Request{Op: wire.OpDelete, Namespace: []byte("a"), Keys: doors.Keys("k")}
		onehost.Is(t, "DELETE", other.Call(gone), wire.OK, "")
		next := wire.Request{Op: wire.OpSet, Namespace: []byte("b"), Key: []byte("k"), Value: []byte("v")}
		onehost.Is(t, "SET in another namespace", other.Call(next), wire.OK, "")
		for ; n > 0; n-- {
			turns.EndTurn(quota.CopyTurn)
		}
		if r := c.Receive(wire.OpMGet); len(r.Items) != 1 || r.Items[0].Status != wire.Miss {
			t.Errorf("MGET of what was deleted: %s, %d items", r.Status, len(r.Items))
		}
	})
}

// TestReadsAfterAWait sends reads in one batch and takes no answers for a while. A value that has ended
// meanwhile is no answer, although it was there when the batch was read.
func TestReadsAfterAWait(t *testing.T) {
	doors.Virtually(t, onehost.Config{L2Size: 64 << 20, BufferSize: 64 << 20}, func(t *testing.T, h *doors.Host) {
		c := h.App()
		c.Set("long", make([]byte, 1<<20))
		r := c.Call(wire.Request{Op: wire.OpSet, Key: []byte("short"), Value: []byte("v"), TTLMS: 1000})
		onehost.Is(t, "SET", r, wire.OK, "")
		const n = 8
		var b []byte
		for i := range uint64(n) {
			b = wire.AppendRequest(b, &wire.Request{ID: 10 + i, Op: wire.OpGet, Key: []byte("long")})
		}
		b = wire.AppendRequest(b, &wire.Request{ID: 10 + n, Op: wire.OpGet, Key: []byte("short")})
		b = wire.AppendRequest(b, &wire.Request{ID: 11 + n, Op: wire.OpMGet, Keys: doors.Keys("short")})
		c.Send(b)
		settle()
		time.Sleep(2 * time.Second)
		for range n {
			if r := c.Receive(wire.OpGet); r.Status != wire.OK || len(r.Value) != 1<<20 {
				t.Fatalf("%s %s", r.Status, r.Message)
			}
		}
		if r := c.Receive(wire.OpGet); r.Status != wire.Miss {
			t.Errorf("GET after the value's end: %s %s", r.Status, r.Value)
		}
		if r := c.Receive(wire.OpMGet); len(r.Items) != 1 || r.Items[0].Status != wire.Miss {
			t.Errorf("MGET after the value's end: %+v", r)
		}
	})
}
