package cluster

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// readers are the processes that this one has answered polls of, and how far
// each has applied its log: whoever may have a lease on it, whatever membership
// says. It is safe for concurrent use.
type readers struct {
	mu      sync.Mutex
	m       map[kv.Process]*reader
	changed chan struct{} // closed when one has moved; nil where nobody waits
}

type reader struct {
	polledAt time.Duration // when the last poll of it was answered
	applied  uint64
}

// maxReaders bounds what is remembered: runs of nodes that polled lately.
const maxReaders = 4096

// polled notes that a poll is about to be answered. False says that there are
// too many: it must not be.
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

// drop is forget.
func (r *readers) drop(now, lease time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now, lease)
}

// forget drops those whose leases have lapsed. The lock is held.
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

// behind counts those whose leases may still be good and that have not applied
// a place, and returns what is closed when that changes.
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

// Margin is how long one waits for a time that another clock measures.
func Margin(d time.Duration) time.Duration { return ownership.Margin(d) }

// Applied waits until every process that may have a lease on this one has
// applied its log up to a place, or none from before can be good any more. That
// is after Margin(B) at the most. It says false if ctx ends before.
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
