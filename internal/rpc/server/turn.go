package server

import (
	"sync/atomic"
	"time"
)

// turn is how long a reader serves without a rest. At its end the reader yields its
// processor to other threads. Without that the system lets a thread run for milliseconds,
// and another thread with one short request may wait so long, if it has served a flood
// before: the runtime moves readers from thread to thread. If no thread waits, yielding
// costs less than a microsecond. Beside a thread that never rests the reader then has
// less than half of a processor: about a fifth was seen. A reader that gets few requests
// at a time rests before its turn is over: it finds nothing to read.
type turn struct {
	parts int       // parts served in this turn
	began time.Time // set after the second part
}

const (
	turnTime  = 250 * time.Microsecond
	partBytes = 16 << 10 // of requests in a part; a part has at least one request
)

// over is called after each part, and says whether the turn is over. Most readers rest
// after the first or second part, so it reads the clock only from then on.
func (t *turn) over() bool {
	switch t.parts++; {
	case t.parts == 1:
	case t.parts == 2:
		t.began = time.Now()
	case time.Since(t.began) >= turnTime:
		t.restart()
		return true
	}
	return false
}

// restart begins another turn.
func (t *turn) restart() { t.parts = 0 }

// A reader is busy in its third batch in a row, or in a batch of many requests.
const (
	busyBatches = 2
	busyFrames  = 8
)

// nudgeEvery is the least time between two nudges: one costs some microseconds of a thread.
const nudgeEvery = 500 * time.Microsecond

var (
	epoch     = time.Now()
	lastNudge atomic.Int64 // in ns since epoch
)

// nudge makes the runtime poll the network. A busy reader calls it.
//
// Go's scheduler waits for the network on an idle processor. If that wait brings a
// reader's bytes, the same thread goes on with the reader, and no thread is left to wait.
// The bytes of other connections are then not seen, although a processor is idle, until
// the reader rests or the runtime's monitor polls, which is after 10 ms. A goroutine that
// becomes runnable makes the runtime wake a thread for it, which then waits for the network.
func nudge() {
	now := int64(time.Since(epoch))
	if last := lastNudge.Load(); now-last >= int64(nudgeEvery) && lastNudge.CompareAndSwap(last, now) {
		go func() {}() // ends at once
	}
}
