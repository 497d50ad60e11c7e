package session_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// queues has a holder take the token of each key, and an app wait for it.
func queues(t *testing.T, h *doors.Host, timeout time.Duration, names ...string) (app *doors.Conn, holder *doors.Conn, tokens [][]byte) {
	app, holder = h.App(), h.App()
	for _, key := range names {
		r := holder.Call(doors.LeaseOf(key, time.Minute))
		if r.Status != wire.Lease {
			t.Fatalf("%s: %s", key, r.Status)
		}
		tokens = append(tokens, r.Token)
		app.Begin(doors.LeaseOf(key, timeout))
	}
	wait(t, h, int64(len(names)))
	return app, holder, tokens
}

// TestQueuedLeaseEnds checks that a LEASE that waits ends with its time, and with its connection.
func TestQueuedLeaseEnds(t *testing.T) {
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		app, _, _ := queues(t, h, time.Second, "k")
		began := time.Now()
		if r := app.Receive(wire.OpLease); r.Status != wire.Timeout || time.Since(began) < 900*time.Millisecond {
			t.Errorf("%s %s after %v", r.Status, r.Message, time.Since(began))
		}
		wait(t, h, 0)
		app, holder, tokens := queues(t, h, time.Hour, "a", "b", "c")
		_ = app.Close()
		for i, key := range []string{"a", "b"} { // the network says after the first answer that there is no client
			settle()
			holder.Call(doors.FillOf(key, tokens[i], "v"))
		}
		wait(t, h, 0)
		if n := h.LeaseTokens.Stats(); n.Waiting != 0 {
			t.Errorf("%+v", n)
		}
	})
}

// TestQueuedLeaseGetsLongValues checks that a LEASE that waits gets a long value, also if it is not stored.
func TestQueuedLeaseGetsLongValues(t *testing.T) {
	cfg := longLeases
	cfg.MaxValue, cfg.L2Size = 1<<20, 32<<20
	for _, stored := range []bool{true, false} {
		doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
			app, holder, tokens := queues(t, h, time.Hour, "k")
			if !stored {
				h.Delete("k", 0)
			}
			value := strings.Repeat("v", 300_000)
			r := holder.Call(doors.FillOf("k", tokens[0], value))
			if (r.Status == wire.OK) != stored {
				t.Errorf("FILL: %s %s", r.Status, r.Message)
			}
			onehost.Is(t, "the LEASE", app.Receive(wire.OpLease), wire.OK, value)
			wait(t, h, 0)
		})
	}
}

// TestQueuedLeaseAsksAgain checks that a LEASE that waits begins anew if its token ends without a value
// after the key was changed: there is no one to hand it to.
func TestQueuedLeaseAsksAgain(t *testing.T) {
	doors.Virtually(t, longLeases, func(t *testing.T, h *doors.Host) {
		app, _, tokens := queues(t, h, time.Hour, "k")
		h.Delete("k", 0)
		h.Abandon("k", tokens[0])
		if r := app.Receive(wire.OpLease); r.Status != wire.Lease {
			t.Errorf("%s %s", r.Status, r.Message)
		}
	})
}

// TestQueuedLeasesTakeTurns has many LEASEs of a connection get a long value at once. The copies that
// there is memory for are made one after the other, as the app
// reads them, and the other LEASEs are BUSY at once.
func TestQueuedLeasesTakeTurns(t *testing.T) {
	cfg := longLeases
	cfg.MaxValue, cfg.L2Size, cfg.BufferSize = 1<<20, 32<<20, 8<<20
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		const n = 60
		app, holder, tokens := queues(t, h, time.Hour, "k")
		for range n - 1 {
			app.Begin(doors.LeaseOf("k", time.Hour))
		}
		wait(t, h, n)
		value := strings.Repeat("v", 300_000)
		onehost.Is(t, "FILL", holder.Call(doors.FillOf("k", tokens[0], value)), wire.OK, "")
		settle()
		waits := h.Waiting.Load()
		if waits < 2 || waits > n/2 {
			t.Errorf("%d of %d LEASEs still wait, while the app reads nothing", waits, n)
		}
		got := map[wire.Status]int{}
		for range n {
			r := app.Receive(wire.OpLease)
			if got[r.Status]++; r.Status == wire.OK && string(r.Value) != value {
				t.Errorf("%d bytes", len(r.Value))
			}
		}
		if got[wire.OK] < int(waits) || got[wire.OK]+got[wire.Busy] != n { // what waits has its memory
			t.Errorf("%v, %d waited", got, waits)
		}
	})
}
