package sched

import (
	"runtime"
	"sync/atomic"
	"time"
)

// processors varies the number of Go's processors: the machine's, and two more while readers
// are busy. Go's scheduler polls the network only on a processor that has nothing else to run.
// While busy readers have them all, other connections would wait for the runtime's monitor,
// 10 ms; with two more, the operating system shares out the real ones. But each processor
// more is a thread that wakes for requests that come one by one, and takes the clients' time.
type processors struct {
	vary        atomic.Bool
	add, remove func()

	more   atomic.Bool
	busyAt atomic.Int64 // in ns since epoch
}

// maxProcs is the one of this process.
var maxProcs = processors{
	add:    func() { runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + 2) },
	remove: runtime.SetDefaultGOMAXPROCS,
}

// epoch is the zero of moments that are kept as numbers.
var epoch = time.Now()

// calm is how long no reader has been busy when the additional processors go. A change stops
// all goroutines, for some milliseconds if the processors are busy.
const calm = 10 * time.Second

// VaryProcessors lets the process have two of Go's processors more than the machine has while
// readers are busy or copy long values, or while connections come fast. A single processor
// stays single: the system would let its threads take turns of milliseconds, and a request
// whose thread is not running would wait for them.
func VaryProcessors() { maxProcs.vary.Store(runtime.GOMAXPROCS(0) > 1) }

// noteBusy notes that a reader is busy, or that connections come faster than they may begin.
func (p *processors) noteBusy() {
	if !p.vary.Load() {
		return
	}
	p.busyAt.Store(int64(time.Since(epoch)))
	if !p.more.Load() && p.more.CompareAndSwap(false, true) {
		go p.add() // waits for a collection of garbage that is under way
		time.AfterFunc(calm, p.calmDown)
	}
}

// calmDown takes the additional processors away once no reader has been busy for long enough.
func (p *processors) calmDown() {
	at := p.busyAt.Load()
	if left := calm - (time.Since(epoch) - time.Duration(at)); left > 0 {
		time.AfterFunc(left, p.calmDown)
		return
	}
	p.remove()
	p.more.Store(false)
	if p.busyAt.Load() != at { // busy meanwhile
		p.noteBusy()
	}
}

// NoteBusy notes that a reader of this process is busy, or that connections come faster than they may begin.
func NoteBusy() { maxProcs.noteBusy() }
