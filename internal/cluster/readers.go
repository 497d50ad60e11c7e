package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
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

// polled notes that a poll is about to be answered. If it returns false, there are too
// many readers and the poll must not be answered.
func (r *readers) polled(id kv.Process, now, lease time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.m[id]
	if o == nil {
		if len(r.m) >= maxReaders {
			r.forget(now, lease)
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

// drop is forget for callers without the lock.
func (r *readers) drop(now, lease time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now, lease)
}

// forget drops the readers whose leases have lapsed. r.mu is held.
func (r *readers) forget(now, lease time.Duration) {
	for id, o := range r.m {
		if now-o.polledAt >= lease {
			delete(r.m, id)
		}
	}
}

func (r *readers) applied(id kv.Process, place uint64) {
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
	r.forget(now, lease)
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

// Margin returns how long to wait here for a time d that another clock measures.
func Margin(d time.Duration) time.Duration { return ownership.Margin(d) }

// Applied waits until every process that may have a lease on this one has applied its
// log up to a place. It waits for Margin(B) at most: by then no lease from before can
// be valid. It returns false if ctx ends first.
func (n *Node) Applied(ctx context.Context, place uint64) bool {
	lease := Margin(n.cfg.Bound)
	begun := n.cfg.Clock.Read().Boot
	t := time.NewTimer(lease)
	defer t.Stop()
	n.urge(place)
	for {
		now := n.cfg.Clock.Read().Boot
		behind, changed := n.readers.behind(place, now, lease)
		if behind == 0 || now-begun >= lease {
			return true
		}
		select {
		case <-changed:
		case <-t.C:
		case <-ctx.Done():
			return false
		}
	}
}
