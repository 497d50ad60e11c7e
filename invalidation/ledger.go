package invalidation

import (
	"runtime"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Ledger remembers, in a fixed amount of memory, the last known change of every key.
// It answers one question wherever a copy could be kept or served: Admit.
//
// It is a direct-mapped table. If two keys share a slot, the key that was noted last
// has its version there, and the slot's floor stands in for all other keys: they are
// admitted only if they were attested at or after the floor. So a collision costs a
// miss, and never serves a stale copy. Above the slots are floors of whole partitions
// and of whole namespaces, and a namespace may be closed as a whole.
//
// It is safe for concurrent use; Admit takes no lock.
type Ledger struct {
	slots      []slot
	partitions []atomic.Uint64 // versions; a copy's asOf must reach it
	flushes    []atomic.Uint64 // versions, by namespace; an entry's version must reach it
	closed     []atomic.Bool   // namespaces of which nothing is admitted
	noted      atomic.Int64
	collisions atomic.Int64
}

// slot is one place of the table. Its fields are one unit: seq is odd while a writer
// changes them, and differs before and after.
type slot struct {
	seq     atomic.Uint64
	hash    atomic.Uint64
	version atomic.Uint64
	floor   atomic.Uint64
}

// DefaultSlots is 65,536 slots: 2 MiB.
const DefaultSlots = 1 << 16

// NewLedger returns an empty ledger with a number of slots, which must be a power of
// two.
func NewLedger(slots int) *Ledger {
	return &Ledger{
		slots:      make([]slot, slots),
		partitions: make([]atomic.Uint64, kv.Partitions),
		flushes:    make([]atomic.Uint64, kv.MaxNamespaces),
		closed:     make([]atomic.Bool, kv.MaxNamespaces),
	}
}

// slotOf uses the low bits of the hash, since the top bits name the partition.
func (l *Ledger) slotOf(h kv.Hash) *slot { return &l.slots[uint64(h)&uint64(len(l.slots)-1)] }

// Admit says whether a copy may be served or kept. The copy's entry was written at
// version, and its owner attested it at asOf.
func (l *Ledger) Admit(ns kv.NamespaceID, h kv.Hash, version, asOf kv.Version) bool {
	if uint64(version) < l.flushes[ns].Load() || uint64(asOf) < l.partitions[h.Partition()].Load() ||
		l.closed[ns].Load() {
		return false
	}
	s := l.slotOf(h)
	for {
		seq := s.seq.Load()
		hash, noted, floor := s.hash.Load(), s.version.Load(), s.floor.Load()
		if seq&1 == 0 && s.seq.Load() == seq {
			if hash == uint64(h) {
				return uint64(asOf) >= noted
			}
			return uint64(asOf) >= floor
		}
		runtime.Gosched() // a writer is changing the slot
	}
}

// Warm brings what Note will need for some keys into the processor's cache, so that the
// cache misses of different keys overlap. The result has no meaning; a caller that keeps it
// prevents the compiler from removing the reads.
func (l *Ledger) Warm(hashes []kv.Hash) (sum uint64) {
	for _, h := range hashes {
		sum += l.slotOf(h).seq.Load()
	}
	return sum
}

// Note records that a key has changed at a version. Notes may come in any order, and
// more than once.
func (l *Ledger) Note(h kv.Hash, version kv.Version) {
	l.noted.Add(1)
	s := l.slotOf(h)
	seq := s.lock()
	old := s.version.Load()
	switch hash := s.hash.Load(); {
	case hash == uint64(h):
		s.version.Store(max(old, uint64(version)))
	default:
		floor := max(s.floor.Load(), old)
		if old > 0 {
			l.collisions.Add(1)
		}
		s.floor.Store(floor)
		s.hash.Store(uint64(h))
		s.version.Store(max(floor, uint64(version)))
	}
	s.seq.Store(seq + 2)
}

// lock makes seq odd and returns its value from before.
func (s *slot) lock() uint64 {
	for {
		seq := s.seq.Load()
		if seq&1 == 0 && s.seq.CompareAndSwap(seq, seq+1) {
			return seq
		}
		runtime.Gosched()
	}
}

// RaisePartition outdates every copy of a partition that was attested before floor.
func (l *Ledger) RaisePartition(p uint16, floor kv.Version) { raise(&l.partitions[p], floor) }

// RaiseFlush outdates every entry of a namespace that was written before floor.
func (l *Ledger) RaiseFlush(ns kv.NamespaceID, floor kv.Version) { raise(&l.flushes[ns], floor) }

// ResetNamespace clears the flush floor of a namespace slot that a new name gets.
func (l *Ledger) ResetNamespace(ns kv.NamespaceID) { l.flushes[ns].Store(0) }

// Close has nothing of a namespace admitted, or ends that.
func (l *Ledger) Close(ns kv.NamespaceID, closed bool) { l.closed[ns].Store(closed) }

// Closed reports whether nothing of a namespace is admitted.
func (l *Ledger) Closed(ns kv.NamespaceID) bool { return l.closed[ns].Load() }

func raise(at *atomic.Uint64, v kv.Version) {
	for {
		old := at.Load()
		if old >= uint64(v) || at.CompareAndSwap(old, uint64(v)) {
			return
		}
	}
}

// LedgerStats counts a ledger's work.
type LedgerStats struct {
	Slots      int
	Noted      int64
	Collisions int64 // notes that pushed another key's version into a floor
}

// Stats returns the counts so far.
func (l *Ledger) Stats() LedgerStats {
	return LedgerStats{len(l.slots), l.noted.Load(), l.collisions.Load()}
}
