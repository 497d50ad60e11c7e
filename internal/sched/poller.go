package sched

import (
	"runtime"
	"sync/atomic"
	"time"
)

// nudgeEvery is the least time between two calls of WakePoller: one costs some microseconds of a thread.
const nudgeEvery = 500 * time.Microsecond

var lastNudge atomic.Int64 // in ns since epoch

// WakePoller makes the runtime poll the network. A busy reader calls it.
//
// Go's scheduler waits for the network on an idle processor. If that wait brings a
// reader's bytes, the same thread goes on with the reader, and no thread is left to wait.
// The bytes of other connections are then not seen, although a processor is idle, until
// the reader rests or the runtime's monitor polls, which is after 10 ms. A goroutine that
// becomes runnable makes the runtime wake a thread for it, which then waits for the network.
func WakePoller() {
	now := int64(time.Since(epoch))
	if last := lastNudge.Load(); now-last >= int64(nudgeEvery) && lastNudge.CompareAndSwap(last, now) {
		go func() {}() // ends at once
		maxProcs.noteBusy()
	}
}

// LetOthersRun runs the goroutines that are ready before the caller goes on: each of them that has a request for the
// same connection adds it to the caller's write.
func LetOthersRun() { runtime.Gosched() }
