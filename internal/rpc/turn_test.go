package rpc

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A turn ends with the part that is over its time, a rest begins another, and the time of
// the first part does not count.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var u turn
		part := func(d time.Duration) bool { time.Sleep(d); return u.served() }
		for range 2 {
			if part(time.Hour) || part(time.Hour) || part(turnTime-1) {
				t.Error("a turn is over too soon")
			}
			if !part(1) {
				t.Error("a turn goes on for too long")
			}
		}
		for range 10 {
			if u.rest(); part(time.Hour) || part(time.Hour) {
				t.Error("a turn goes on after a rest")
			}
		}
	})
}

// A reader that is kept at work gives way; one that rests does not.
func TestFloodGivesWay(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	calm := dial()
	for range 14 { // the last of them without looks
		pipeline(t, calm, 1, "dawdle")
		readReply(t, calm)
		time.Sleep(20 * time.Millisecond) // and it rests
	}
	if n := s.shared.turns.Load(); n != 0 {
		t.Errorf("gave way %d times to none", n)
	}
	busy := dial()
	end := make(chan struct{})
	go func() { // ends with end
		defer close(end)
		var b [64 << 10]byte
		for s.shared.turns.Load() == 0 {
			if _, err := busy.Read(b[:]); err != nil {
				return
			}
		}
	}()
	_ = busy.SetDeadline(time.Now().Add(time.Minute))
	for s.shared.turns.Load() == 0 {
		pipeline(t, busy, 1000, "x")
	}
	<-end
	_ = busy.Close()
}

// What is served at a time is bounded by its bytes too, one request at least.
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
