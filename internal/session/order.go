package session

import (
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// order keeps the requests of one connection that name the same key in the order in which
// they were sent, while some of them wait.
type order struct {
	waiting atomic.Int32 // waiting requests; usually none

	mu   sync.Mutex
	last map[kv.Hash]*turn // for each key, the request that came last
}

// turn is the place of one request.
type turn struct {
	o      *order
	keys   []kv.Hash // in the array one, if there is a single key
	one    [1]kv.Hash
	before []*turn
	over   chan struct{} // closed by leave; nil while no request follows
}

// has reports whether a request of one of the keys waits.
func (o *order) has(keys []kv.Hash) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, k := range keys {
		if o.last[k] != nil {
			return true
		}
	}
	return false
}

// enter gives t a place behind all requests of the keys. With place false t waits for
// those requests, but no later request waits for t.
func (o *order) enter(t *turn, keys []kv.Hash, place bool) {
	t.keys = append(t.one[:0], keys...)
	if place {
		t.o = o
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == nil {
		o.last = map[kv.Hash]*turn{}
	}
	for _, k := range t.keys {
		if b := o.last[k]; b != t {
			t.follow(b)
		}
		if place {
			o.last[k] = t
		}
	}
	if place {
		o.waiting.Add(1)
	}
}

// follow makes t wait for b, if b is not nil.
func (tn *turn) follow(b *turn) {
	if b == nil {
		return
	}
	if b.over == nil {
		b.over = make(chan struct{})
	}
	tn.before = append(tn.before, b)
}

// wait returns when the requests before t are over. Each of them ends by its own
// deadline.
func (tn *turn) wait() {
	for _, b := range tn.before {
		<-b.over
	}
	tn.before = nil
}

// leave ends the turn, if it has not ended yet.
func (tn *turn) leave() {
	if tn.o == nil {
		return
	}
	tn.o.mu.Lock()
	for _, k := range tn.keys {
		if tn.o.last[k] == tn {
			delete(tn.o.last, k)
		}
	}
	over := tn.over // no request can follow any more
	tn.o.mu.Unlock()
	tn.o.waiting.Add(-1)
	tn.o = nil
	if over != nil {
		close(over)
	}
}
