package rpc

import (
	"sync/atomic"
	"time"
)

// lookout makes the runtime poll the network while a reader is busy.
//
// Go's scheduler waits for the network on an idle processor. If that wait brings a
// reader's bytes, the same thread goes on with the reader, and no thread is left to wait.
// The bytes of other connections are then not seen, although a processor is idle, until
// the reader rests or the runtime's monitor polls, which is after 10 ms. Making a
// goroutine runnable makes the runtime wake a thread for it, which then waits for the
// network. The lookout's own goroutine exists only to be made runnable.
type lookout struct {
	epoch time.Time
	last  atomic.Int64 // the last nudge, in ns since the epoch
	wake  chan struct{}
}

// nudgeEvery is the least time between two nudges: one costs some microseconds of a
// thread.
const nudgeEvery = 500 * time.Microsecond

// A reader is busy in its third batch in a row, or in a batch of many requests. A reader
// that has been alone lately is busy only once it has not rested for nudgeEvery. Its peer
// sends one request at a time, and the woken thread takes the processor from that peer.
const (
	busyBatches = 2
	busyFrames  = 8
)

func newLookout() *lookout { return &lookout{epoch: time.Now(), wake: make(chan struct{}, 1)} }

// now returns the time in ns since the epoch.
func (l *lookout) now() int64 { return int64(time.Since(l.epoch)) }

// nudge wakes the goroutine, at most once per nudgeEvery. A busy reader calls it.
func (l *lookout) nudge() { l.nudgeAt(l.now()) }

// nudgeAlone is nudge for a reader that has been alone lately. since is when it became
// busy, 0 if that is now; nudgeAlone returns it.
func (l *lookout) nudgeAlone(since int64) int64 {
	now := l.now()
	if since == 0 {
		return now
	}
	if now-since >= int64(nudgeEvery) {
		l.nudgeAt(now)
	}
	return since
}

func (l *lookout) nudgeAt(now int64) {
	last := l.last.Load()
	if now-last < int64(nudgeEvery) || !l.last.CompareAndSwap(last, now) {
		return
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// start starts the goroutine. stop ends it and waits for its end.
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
