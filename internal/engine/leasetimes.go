package engine

import (
	"container/heap"
	"runtime"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// leaseTimes ends the LEASEs that wait until their time is over. Thousands may end at one moment, and each would be a
// goroutine. So one goroutine ends them, some at a time. It ends when none is due.
type leaseTimes struct {
	mu    sync.Mutex
	waits leaseHeap // the one that ends first is the first
	timer *time.Timer
	runs  bool
}

// endedAtOnce is how many LEASEs end before other goroutines run.
const endedAtOnce = 64

// add has w give up after some time.
func (l *leaseTimes) add(w *Wait, in time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	w.ends = time.Now().Add(in)
	if heap.Push(&l.waits, w); w.place == 0 {
		l.armLocked()
	}
}

// remove takes w out, if it is in.
func (l *leaseTimes) remove(w *Wait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.place >= 0 {
		heap.Remove(&l.waits, w.place)
	}
}

// armLocked sets the timer for the first one.
func (l *leaseTimes) armLocked() {
	switch {
	case l.runs || len(l.waits) == 0:
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(l.waits[0].ends), l.run)
	default:
		l.timer.Reset(time.Until(l.waits[0].ends))
	}
}

func (l *leaseTimes) run() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.runs {
		return
	}
	l.runs = true
	for due := l.popLocked(); len(due) > 0; due = l.popLocked() {
		l.mu.Unlock()
		var a transport.Answers
		for _, w := range due {
			w.giveUp(&a)
		}
		a.Write()
		runtime.Gosched()
		l.mu.Lock()
	}
	l.runs = false
	l.armLocked()
}

// popLocked takes some out whose time is over.
func (l *leaseTimes) popLocked() (due []*Wait) {
	now := time.Now()
	for len(l.waits) > 0 && len(due) < endedAtOnce && !now.Before(l.waits[0].ends) {
		due = append(due, heap.Pop(&l.waits).(*Wait))
	}
	return due
}

// leaseHeap implements heap.Interface.
type leaseHeap []*Wait

func (h leaseHeap) Len() int           { return len(h) }
func (h leaseHeap) Less(i, j int) bool { return h[i].ends.Before(h[j].ends) }

func (h leaseHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].place, h[j].place = i, j
}

func (h *leaseHeap) Push(x any) {
	w := x.(*Wait)
	w.place = len(*h)
	*h = append(*h, w)
}

func (h *leaseHeap) Pop() any {
	n := len(*h) - 1
	w := (*h)[n]
	(*h)[n] = nil
	*h = (*h)[:n]
	w.place = -1
	return w
}
