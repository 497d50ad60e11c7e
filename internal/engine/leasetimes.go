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
	ends  leaseEnds // the next one is the first
	timer *time.Timer
	runs  bool
}

// leaseEnd is the end of the time of a LEASE.
type leaseEnd struct {
	at     time.Time
	place  int // in leaseTimes; -1: none
	giveUp func(a *transport.Answers)
}

// endedAtOnce is how many LEASEs end before other goroutines run.
const endedAtOnce = 64

// add has giveUp called after some time.
func (l *leaseTimes) add(e *leaseEnd, in time.Duration, giveUp func(a *transport.Answers)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e.at, e.giveUp = time.Now().Add(in), giveUp
	if heap.Push(&l.ends, e); e.place == 0 {
		l.armLocked()
	}
}

// remove takes a LEASE out that has been added, if it is still in.
func (l *leaseTimes) remove(e *leaseEnd) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.place >= 0 {
		heap.Remove(&l.ends, e.place)
	}
}

// armLocked sets the timer for the first one.
func (l *leaseTimes) armLocked() {
	switch {
	case l.runs || len(l.ends) == 0:
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(l.ends[0].at), l.run)
	default:
		l.timer.Reset(time.Until(l.ends[0].at))
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
		for _, e := range due {
			e.giveUp(&a)
		}
		a.Write()
		runtime.Gosched()
		l.mu.Lock()
	}
	l.runs = false
	l.armLocked()
}

// popLocked takes some out whose time is over.
func (l *leaseTimes) popLocked() (due []*leaseEnd) {
	now := time.Now()
	for len(l.ends) > 0 && len(due) < endedAtOnce && !now.Before(l.ends[0].at) {
		due = append(due, heap.Pop(&l.ends).(*leaseEnd))
	}
	return due
}

// leaseEnds implements heap.Interface.
type leaseEnds []*leaseEnd

func (list leaseEnds) Len() int           { return len(list) }
func (list leaseEnds) Less(i, j int) bool { return list[i].at.Before(list[j].at) }

func (list leaseEnds) Swap(i, j int) {
	list[i], list[j] = list[j], list[i]
	list[i].place, list[j].place = i, j
}

func (list *leaseEnds) Push(x any) {
	e := x.(*leaseEnd)
	e.place = len(*list)
	*list = append(*list, e)
}

func (list *leaseEnds) Pop() any {
	n := len(*list) - 1
	e := (*list)[n]
	(*list)[n] = nil
	*list = (*list)[:n]
	e.place = -1
	return e
}
