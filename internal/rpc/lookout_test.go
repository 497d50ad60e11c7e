package rpc

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// withoutLoop runs a test of what concerns goroutines of connections.
func withoutLoop(t *testing.T) {
	was := inLoop
	inLoop = false
	t.Cleanup(func() { inLoop = was })
}

// TestBusyReaderNudges checks that a busy reader makes the runtime poll the network. A
// reader with a request now and then does not.
func TestBusyReaderNudges(t *testing.T) {
	testenv.ReadsClock(t, 2*nudgeEvery, "a server nudges only after its first moment")
	withoutLoop(t)
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

// TestLongRequestsNudge checks that a reader of many requests at once nudges too, however
// long they are.
func TestLongRequestsNudge(t *testing.T) {
	testenv.ReadsClock(t, 2*nudgeEvery, "a server nudges only after its first moment")
	withoutLoop(t)
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

// TestLoneReaderNudgesLater checks that a reader that has been alone nudges only once it
// has been busy for nudgeEvery.
func TestLoneReaderNudgesLater(t *testing.T) {
	l := newLookout()
	l.epoch = testenv.Date().Add(-time.Hour)
	in := input{inRow: aloneAfter}
	in.nudge(l)
	l.epoch = testenv.Date().Add(-time.Duration(in.busyAt)) // no time has passed
	in.nudge(l)
	if l.last.Load() != 0 {
		t.Error("nudged at once")
	}
	l.epoch = l.epoch.Add(-nudgeEvery) // so much time passes
	if in.nudge(l); l.last.Load() == 0 {
		t.Error("not nudged, though it has been busy for long")
	}
	l.last.Store(0)
	in = input{}
	if in.nudge(l); l.last.Load() == 0 {
		t.Error("not nudged at once by one in company")
	}
}
