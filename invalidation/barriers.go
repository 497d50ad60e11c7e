package invalidation

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Barriers remembers, in a fixed amount of memory, until when loads of a key are not
// kept: an origin's replica may not yet have the change for which the key was
// invalidated. Times are on this host's boot clock.
//
// It is a direct-mapped table like the Ledger's, and separate from it: a host that is
// alone has barriers and no ledger, and barriers must not make Admit slower. If two
// keys share a slot, the barrier of the key that is pushed out moves into the slot's
// floor, for all other keys. So a key may seem to have a barrier that it does not
// have, but never the reverse.
//
// It is safe for concurrent use.
type Barriers struct{ slots []barrierSlot }

type barrierSlot struct {
	mu      sync.Mutex
	hash    kv.Hash
	until   time.Duration // of hash
	floor   time.Duration // of all other keys
	version kv.Version    // of the last deletion that had a barrier, of any key
	under   int           // deletions under way, of any key
}

// DefaultBarriers is 16,384 slots: 768 KiB once all are used.
const DefaultBarriers = 1 << 14

// MaxReplicaLag is the longest load barrier.
const MaxReplicaLag = 10 * time.Minute

// NewBarriers returns an empty table with a number of slots, which must be a power of
// two.
func NewBarriers(slots int) *Barriers { return &Barriers{slots: make([]barrierSlot, slots)} }

func (t *Barriers) slotOf(h kv.Hash) *barrierSlot { return &t.slots[uint64(h)&uint64(len(t.slots)-1)] }

// Raise raises a barrier for a key whose deletion another host carries out.
func (t *Barriers) Raise(h kv.Hash, until time.Duration) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raise(h, until)
}

// raise is Raise for a caller that holds s.mu.
func (s *barrierSlot) raise(h kv.Hash, until time.Duration) {
	if s.hash != h {
		s.floor = max(s.floor, s.until)
		s.hash, s.until = h, s.floor // the floor may be its own, from before
	}
	s.until = max(s.until, until)
}

// Begin raises a barrier for a key that is about to be deleted here. Deleted must
// follow. Until then no write ends a barrier in this slot, since the order of the
// write and the deletion is not known.
func (t *Barriers) Begin(h kv.Hash, until time.Duration) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raise(h, until)
	s.under++
}

// Deleted ends what Begin has begun: the key was deleted at a version.
func (t *Barriers) Deleted(h kv.Hash, version kv.Version) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.under--
	s.version = max(s.version, version)
}

// Written ends the barrier of a key that an app has given a value at a version,
// unless a deletion came after that version.
func (t *Barriers) Written(h kv.Hash, version kv.Version) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == h && s.under == 0 && version > s.version {
		s.until = 0
	}
}

// Bars says whether the result of a load that began at a moment is not to be kept.
func (t *Barriers) Bars(h kv.Hash, begun time.Duration) bool {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == h {
		return begun < s.until
	}
	return begun < s.floor
}
