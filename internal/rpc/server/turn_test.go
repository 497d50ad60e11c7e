package server

import (
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestFloodGivesWay checks that a reader that is kept busy yields.
func TestFloodGivesWay(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	nc := dial()
	pipeline(t, nc, 3*MaxFrames, "dawdle") // of one batch
	for range 3 * MaxFrames {
		readReply(t, nc)
	}
	if n := s.shared.turns.Load(); n != 1 {
		t.Errorf("gave way %d times in three parts, want 1", n)
	}
}

// TestLongBatchesTakeTurns checks that a reader whose time slice is over waits until another long batch
// has ended, that its answers go before, and that short batches pass.
func TestLongBatchesTakeTurns(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	turns := s.Limits().Budget.Open("uid 1", "")
	running := 0
	for turns.TryTurn(quota.LongTurn) {
		running++
	}
	waits := func(n int) func() bool {
		return func() bool { return s.Limits().Budget.WaitingTurns(quota.LongTurn) == n }
	}
	long, short := dial(), dial()
	pipeline(t, long, 3*MaxFrames, "dawdle")
	testenv.Eventually(t, "the long batch to wait", waits(1))
	pipeline(t, short, 1, "short")
	readReply(t, short)
	readReply(t, long)
	for range running {
		turns.EndTurn(quota.LongTurn)
	}
	for range 3*MaxFrames - 1 {
		readReply(t, long)
	}
	testenv.Eventually(t, "the turn to end", func() bool {
		last := turns.TryTurn(quota.LongTurn)
		if last {
			turns.EndTurn(quota.LongTurn)
		}
		return last
	})
	turns.Close()
}

// TestRestEndsTurn checks that a reader which has waited for each request does not yield.
func TestRestEndsTurn(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		nc, c, _, ended := servePolled(t, &echoHandler{echo: newEcho()}, Limits{}, "")
		for range 6 { // each takes a millisecond at least
			if _, err := nc.Write(getFrame(1, "x")); err != nil {
				t.Fatal(err)
			}
			readReply(t, nc)
		}
		if n := c.server.turns.Load(); n != 0 {
			t.Errorf("gave way %d times", n)
		}
		_ = nc.Close()
		<-ended
	})
}

// TestPartsAreShort checks that a part is also bounded by its bytes, and has at least one
// request.
func TestPartsAreShort(t *testing.T) {
	h := newEcho()
	_, dial, _ := serve(t, h, Limits{})
	nc := dial()
	var b []byte
	for i := range uint64(12) {
		b = append(b, getFrame(i, strings.Repeat("x", 5000))...)
	}
	if _, err := nc.Write(b); err != nil {
		t.Fatal(err)
	}
	for range 12 {
		if r := readReply(t, nc); r.Status != wire.OK {
			t.Fatal(r.Status)
		}
	}
	if n := h.part.Load(); n > 4 {
		t.Errorf("%d requests of 5,000 bytes were served at a time, want at most 4", n)
	}
}
