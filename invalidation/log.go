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
func (log *Log) Append(e Event) uint64 {
	log.mu.Lock()
	defer log.mu.Unlock()
	log.head++
	log.ring[log.head%uint64(len(log.ring))] = e
	switch {
	case e.Kind == Changed:
		log.marks[e.Hash.Partition()].Changed = log.head
	case e.Kind == Flushed: // a Reset comes with the floors
	default:
		for p := range e.Detail.Partitions.All() {
			log.marks[p].Raised = log.head
		}
	}
	if log.appended != nil {
		close(log.appended)
		log.appended = nil
	}
	return log.head
}

// Head returns the place of the latest event.
func (log *Log) Head() uint64 {
	log.mu.Lock()
	defer log.mu.Unlock()
	return log.head
}

// After appends to dst the events after a place, at most most of them. It returns
// false if they are not all in the log any more, or if the place never existed.
func (log *Log) After(place uint64, most int, dst []Event) ([]Event, bool) {
	log.mu.Lock()
	defer log.mu.Unlock()
	if place > log.head || log.head-place > uint64(len(log.ring)) {
		return dst, false
	}
	for ; place < log.head && most > 0; most-- {
		place++
		dst = append(dst, log.ring[place%uint64(len(log.ring))])
	}
	return dst, true
}

// Reset is for a reader that has read everything up to a place, and has lost what
// follows.
func (log *Log) Reset(place uint64) Reset {
	log.mu.Lock()
	defer log.mu.Unlock()
	if place > log.head { // of another log
		place = 0
	}
	r := Reset{Head: log.head}
	for p, m := range log.marks {
		if m.Changed > place || m.Raised > place {
			m.Partition = uint16(p)
			r.Since = append(r.Since, m)
		}
	}
	return r
}

// Wait returns when there is an event after a place, or when ctx ends.
func (log *Log) Wait(ctx context.Context, place uint64) {
	log.mu.Lock()
	if log.head != place {
		log.mu.Unlock()
		return
	}
	if log.appended == nil {
		log.appended = make(chan struct{})
	}
	appended := log.appended
	log.mu.Unlock()
	select {
	case <-appended:
	case <-ctx.Done():
	}
}
