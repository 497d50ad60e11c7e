package invalidation

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Barriers remembers, in a fixed amount of memory, when keys have changed last: for a
// while after a change an origin's replica may not have it yet, and loads of the key are
// not kept. Times are on this host's boot clock.
//
// It is a direct-mapped table like the Ledger's, and separate from it: a host that is
// alone has barriers and no ledger, and barriers must not make Admit slower. If two
// keys share a slot, the time of the key that is pushed out moves into the slot's
// floor, for all other keys. So a key may seem to have changed that has not, but never
// the reverse.
//
// It has times of changes, not ends of barriers, so that a key that shares its slot with
// keys of other namespaces has a barrier for its own namespace's replica_lag only. Nothing
// takes a time back, so times may be noted in any order.
//
// It is safe for concurrent use.
type Barriers struct{ slots []barrierSlot }

type barrierSlot struct {
	mu    sync.Mutex
	hash  kv.Hash
	last  time.Duration // when hash changed, plus MaxReplicaLag; zero: never
	floor time.Duration // the same of all other keys
}

// DefaultBarriers is 16,384 slots: 512 KiB once all are used.
const DefaultBarriers = 1 << 14

// MaxReplicaLag is the longest load barrier.
const MaxReplicaLag = 10 * time.Minute

// NeverChanged is the time of a change that no barrier reaches.
const NeverChanged = -MaxReplicaLag

// NewBarriers returns an empty table with a number of slots, which must be a power of
// two.
func NewBarriers(slots int) *Barriers { return &Barriers{slots: make([]barrierSlot, slots)} }

func (t *Barriers) slotOf(h kv.Hash) *barrierSlot { return &t.slots[uint64(h)&uint64(len(t.slots)-1)] }

// Note notes that a key has changed at a time. That may be in the past, if the barrier is
// to be shorter.
func (t *Barriers) Note(h kv.Hash, at time.Duration) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash != h {
		s.floor = max(s.floor, s.last)
		s.hash, s.last = h, s.floor // the floor may be its own, from before
	}
	s.last = max(s.last, at+MaxReplicaLag)
}

// Last returns the latest time at which a key may have changed.
func (t *Barriers) Last(h kv.Hash) time.Duration {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == h {
		return s.last - MaxReplicaLag
	}
	return s.floor - MaxReplicaLag
}

// Slots returns the number of slots.
func (t *Barriers) Slots() int { return len(t.slots) }

// Each calls f for each slot with its key, when that has changed, and when others may have.
func (t *Barriers) Each(f func(slot int, h kv.Hash, last, floor time.Duration)) {
	for i := range t.slots {
		s := &t.slots[i]
		s.mu.Lock()
		h, last, floor := s.hash, s.last, s.floor
		s.mu.Unlock()
		f(i, h, last-MaxReplicaLag, floor-MaxReplicaLag)
	}
}

// NoteSlot notes that any key of a slot of another table may have changed at a time. That table's
// number of slots is a power of two, too. If it has fewer, the slot is several slots here.
func (t *Barriers) NoteSlot(slot uint64, slots int, at time.Duration) {
	step := min(max(slots, 1), len(t.slots))
	for i := int(slot & uint64(step-1)); i < len(t.slots); i += step {
		s := &t.slots[i]
		s.mu.Lock()
		s.floor = max(s.floor, at+MaxReplicaLag)
		s.last = max(s.last, s.floor)
		s.mu.Unlock()
	}
}
