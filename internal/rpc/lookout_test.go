package rpc

import (
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
