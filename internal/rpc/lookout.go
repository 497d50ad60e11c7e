package rpc

import (
	"sync/atomic"
	"time"
)

// lookout has the runtime look at the network while a reader is busy.
//
// Go's scheduler waits for the network on an idle processor. Where that wait brings a
// reader's bytes the same thread goes on with the reader, and none is left to wait: until
// the reader rests, or the runtime's monitor looks, which is after 10 ms, no other
// connection's bytes are seen, though a processor is idle. To make a goroutine runnable
// has the runtime wake a thread for it, which then waits for the network. The lookout's
// own goroutine does nothing else than to be made runnable.
type lookout struct {
	epoch time.Time
	last  atomic.Int64 // the last nudge, in ns since the epoch
	wake  chan struct{}
}

// nudgeEvery is the least time between two: one costs some microseconds of a thread.
const nudgeEvery = 500 * time.Microsecond

// A reader is busy with its third batch in a row, or with one of many requests.
const (
	busyBatches = 2
	busyFrames  = 8
)

func newLookout() *lookout { return &lookout{epoch: time.Now(), wake: make(chan struct{}, 1)} }

// nudge is called by a busy reader.
func (l *lookout) nudge() {
	now, last := int64(time.Since(l.epoch)), l.last.Load()
	if now-last < int64(nudgeEvery) || !l.last.CompareAndSwap(last, now) {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// start starts the goroutine, and returns what ends it.
func (l *lookout) start() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() { // ends with end
		defer close(ended)
		for {
			select {
			case <-l.wake:
			case <-end:
				return
			}
		}
	}()
	return func() { close(end); <-ended }
}
