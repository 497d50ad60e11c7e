package invalidation

import (
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Barriers remembers, in a fixed amount of memory, until when what is loaded of a
// key is not to be kept: an origin's replica may not yet know of the change that
// the key was invalidated for. Times are this host's, of the boot clock.
//
// It is a direct-mapped table like the Ledger's, and stands beside it: a host
// that is alone has holds and no ledger, and Admit must cost nothing more. Where
// two keys share a slot, the hold of the one that is pushed out goes into the
// slot's floor, for all others: a key may seem to be held that is not, and never
// the reverse.
//
// It is safe for concurrent use.
type Barriers struct{ slots []barrierSlot }

type barrierSlot struct {
	mu      sync.Mutex
	hash    kv.Hash
	until   time.Duration // of hash
	floor   time.Duration // of all other keys
	version kv.Version    // of the last deletion that had a hold, of any key
	under   int           // deletions under way, of any key
}

// DefaultBarriers is 16,384 slots, 768 KiB once all are used.
const DefaultBarriers = 1 << 14

// MaxReplicaLag bounds a hold.
const MaxReplicaLag = 10 * time.Minute

// NewBarriers returns an empty table of a number of slots, a power of two.
func NewBarriers(slots int) (*Barriers, error) {
	if slots < 1 || slots&(slots-1) != 0 {
		return nil, fmt.Errorf("%d slots for holds: give a power of two", slots)
	}
	return &Barriers{slots: make([]barrierSlot, slots)}, nil
}

func (t *Barriers) slotOf(h kv.Hash) *barrierSlot { return &t.slots[uint64(h)&uint64(len(t.slots)-1)] }

// Raise holds a key whose deletion somebody else carries out.
func (t *Barriers) Raise(h kv.Hash, until time.Duration) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag(h, until)
}

// lag is Hold. The lock is held.
func (s *barrierSlot) lag(h kv.Hash, until time.Duration) {
	if s.hash != h {
		s.floor = max(s.floor, s.until)
		s.hash, s.until = h, s.floor // which may be its own, from before
	}
	s.until = max(s.until, until)
}

// Begin holds a key that is about to be deleted here. Deleted must follow: until
// then no write ends a hold in this slot, since nobody knows which of the two was
// first.
func (t *Barriers) Begin(h kv.Hash, until time.Duration) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lag(h, until)
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

// Written ends the hold of a key that an app has given a value at a version,
// unless a deletion came after that.
func (t *Barriers) Written(h kv.Hash, version kv.Version) {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == h && s.under == 0 && version > s.version {
		s.until = 0
	}
}

// Bars says whether what a load brings that began at a moment is not to be kept.
func (t *Barriers) Bars(h kv.Hash, begun time.Duration) bool {
	s := t.slotOf(h)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hash == h {
		return begun < s.until
	}
	return begun < s.floor
}
