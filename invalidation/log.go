package invalidation

import (
	"context"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Log is the changes at one process, in order: a ring of the latest events. Places in
// it are counted from one, without a gap. Each reader has a place of its own. A slow
// reader does not block appends, and does not lose events silently: if its place is
// gone, it is told so, and gets a Reset.
//
// It is safe for concurrent use.
type Log struct {
	mu    sync.Mutex
	ring  []Event
	head  uint64 // place of the latest event; zero: none
	marks []Mark // by partition

	appended chan struct{} // closed by the next Append; nil: no waiter
}

// DefaultEvents is 65,536 events: 2 MiB.
const DefaultEvents = 1 << 16

// NewLog returns an empty log that keeps a number of events, at least one.
func NewLog(events int) *Log {
	return &Log{ring: make([]Event, events), marks: make([]Mark, kv.Partitions)}
}

// Append adds an event and returns its place. A caller that changes an entry calls
// Append in the same critical section. So a reader that has read up to the head
// afterwards has read every change that was stored before.
func (l *Log) Append(e Event) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head++
	l.ring[l.head%uint64(len(l.ring))] = e
	switch {
	case e.Kind == Changed:
		l.marks[e.Hash.Partition()].Changed = l.head
	case e.Kind == Flushed: // a Reset comes with the floors
	default:
		for p := range e.Detail.Partitions.All() {
			l.marks[p].Raised = l.head
		}
	}
	if l.appended != nil {
		close(l.appended)
		l.appended = nil
	}
	return l.head
}

// Head returns the place of the latest event.
func (l *Log) Head() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.head
}

// After appends to dst the events after a place, at most most of them. It returns
// false if they are not all in the log any more, or if the place never existed.
func (l *Log) After(place uint64, most int, dst []Event) ([]Event, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place > l.head || l.head-place > uint64(len(l.ring)) {
		return dst, false
	}
	for ; place < l.head && most > 0; most-- {
		place++
		dst = append(dst, l.ring[place%uint64(len(l.ring))])
	}
	return dst, true
}

// Reset is for a reader that has read everything up to a place, and has lost what
// follows.
func (l *Log) Reset(place uint64) Reset {
	l.mu.Lock()
	defer l.mu.Unlock()
	if place > l.head { // of another log
		place = 0
	}
	r := Reset{Head: l.head}
	for p, m := range l.marks {
		if m.Changed > place || m.Raised > place {
			m.Partition = uint16(p)
			r.Since = append(r.Since, m)
		}
	}
	return r
}

// Wait returns when there is an event after a place, or when ctx ends.
func (l *Log) Wait(ctx context.Context, place uint64) {
	l.mu.Lock()
	if l.head != place {
		l.mu.Unlock()
		return
	}
	if l.appended == nil {
		l.appended = make(chan struct{})
	}
	appended := l.appended
	l.mu.Unlock()
	select {
	case <-appended:
	case <-ctx.Done():
	}
}
