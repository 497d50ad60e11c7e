package cluster

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// readers has the processes whose polls this one has answered, and how far each has
// applied its log. These are all processes that may have a lease on this one, whatever
// membership says. It is safe for concurrent use.
type readers struct {
	mu      sync.Mutex
	m       map[kv.Process]*reader
	changed chan struct{} // closed when a place has moved; nil if no caller waits
}

type reader struct {
	polledAt time.Duration // boot clock when its last poll was answered
	applied  uint64
}

// maxReaders limits how many processes are remembered.
const maxReaders = 4096

// addPoll records that a poll is about to be answered. If it returns false, there are
// too many readers and the poll must not be answered.
func (r *readers) addPoll(id kv.Process, now, lease time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.m[id]
	if o == nil {
		if len(r.m) >= maxReaders {
			r.dropLapsedLocked(now, lease)
		}
		if len(r.m) >= maxReaders {
			return false
		}
		if r.m == nil {
			r.m = map[kv.Process]*reader{}
		}
		o = &reader{}
		r.m[id] = o
	}
	o.polledAt = now
	return true
}

// dropLapsed drops the readers whose leases have lapsed.
func (r *readers) dropLapsed(now, lease time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLapsedLocked(now, lease)
}

func (r *readers) dropLapsedLocked(now, lease time.Duration) {
	for id, o := range r.m {
		if now-o.polledAt >= lease {
			delete(r.m, id)
		}
	}
}

// setApplied records how far a reader has applied this process's log.
func (r *readers) setApplied(id kv.Process, place uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.m[id]; o != nil && o.applied != place {
		o.applied = place
		if r.changed != nil {
			close(r.changed)
			r.changed = nil
		}
	}
}

// behind returns how many readers with a possible lease have not applied a place, and a
// channel that is closed when that changes.
func (r *readers) behind(place uint64, now, lease time.Duration) (n int, changed <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dropLapsedLocked(now, lease)
	for _, o := range r.m {
		if o.applied < place {
			n++
		}
	}
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return n, r.changed
}
