package rpc

import (
	"strings"
	"testing"
	"time"
)

// A reader that is busy has the runtime look at the network. One that is asked now and
// then spares it that.
func TestBusyReaderNudges(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	time.Sleep(2 * nudgeEvery) // since the server was made
	for range 10 {
		seldom := dial()
		for range busyBatches {
			pipeline(t, seldom, 1, "x")
			readReply(t, seldom)
		}
	}
	if n := s.shared.lookout.last.Load(); n != 0 {
		t.Errorf("nudged after %v, by one that rests", time.Duration(n))
	}
	busy := dial()
	pipeline(t, busy, 20*busyFrames, "x")
	for range 20 * busyFrames {
		readReply(t, busy)
	}
	if s.shared.lookout.last.Load() == 0 {
		t.Error("not nudged by one that is busy")
	}
}

// So has one that is sent many requests at once, however long they are.
func TestLongRequestsNudge(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{})
	time.Sleep(2 * nudgeEvery)
	nc := dial()
	pipeline(t, nc, busyFrames+2, strings.Repeat("x", 3000))
	for range busyFrames + 2 {
		readReply(t, nc)
	}
	if s.shared.lookout.last.Load() == 0 {
		t.Error("not nudged")
	}
}
