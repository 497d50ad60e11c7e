package cluster

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// readers has the processes whose polls this one has answered, and how far each has
// applied its log. These are all processes that may have a lease on this one, whatever
// membership says. followers.mu guards it.
type readers map[kv.Process]*reader

type reader struct {
	polledAt time.Duration // boot clock when its last poll was answered
	applied  uint64
}

// maxReaders limits how many processes are remembered.
const maxReaders = 4096

// dropLapsed drops the readers whose leases have lapsed.
func (rs readers) dropLapsed(now, lease time.Duration) {
	for id, o := range rs {
		if now-o.polledAt >= lease {
			delete(rs, id)
		}
	}
}

// addReader records that a poll is about to be answered. If it returns false, there are
// too many readers and the poll must not be answered.
func (f *followers) addReader(id kv.Process, now time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.readers[id]
	if o == nil {
		if len(f.readers) >= maxReaders {
			f.readers.dropLapsed(now, Margin(f.cfg.Bound))
		}
		if len(f.readers) >= maxReaders {
			return false
		}
		o = &reader{}
		f.readers[id] = o
	}
	o.polledAt = now
	return true
}

// setApplied records how far a reader has applied this process's log. f.mu is held.
func (f *followers) setApplied(id kv.Process, place uint64) {
	if o := f.readers[id]; o != nil && o.applied != place {
		o.applied = place
		if f.moved != nil {
			close(f.moved)
			f.moved = nil
		}
	}
}

// behind returns how many readers with a possible lease have not applied a place, and a
// channel that is closed when that changes.
func (f *followers) behind(place uint64, now time.Duration) (n int, moved <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readers.dropLapsed(now, Margin(f.cfg.Bound))
	for _, o := range f.readers {
		if o.applied < place {
			n++
		}
	}
	if f.moved == nil {
		f.moved = make(chan struct{})
	}
	return n, f.moved
}
