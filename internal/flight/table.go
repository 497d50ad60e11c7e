package flight

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Table is the flights of one kind that new callers may join, by the hash of their key.
//
// An invalidation stamps itself, and then detaches the flights of its hash: they leave
// the table, and later callers begin new ones. Nearly always no flight is in the table,
// and Invalidate then costs one look at a counter. That look is sound because Add raises the
// counter before the new flight is stamped. An invalidation that sees no flight has
// looked before that, so its own stamp is older than the flight's: the flight includes
// the change.
//
// The lock of a table also guards what its owner keeps beside it. All methods except
// Invalidate, InvalidateIf and None are called with the lock held.
type Table[F Flight] struct {
	joinable atomic.Int64 // flights in the table, and one that is being stamped

	sync.Mutex
	byHash map[kv.Hash]bucket[F]
	most   int // flights at one time since the map was made
	// Detached is called for each flight that is detached; nil: no call. It must not call
	// the table.
	Detached func(F)
}

// Flight is one piece of work for a key that several callers share.
type Flight interface {
	comparable
	FlightKey() kv.Key // its bytes belong to the flight
}

// bucket is the flights of one hash. Nearly always there is one.
type bucket[F Flight] struct {
	first F
	more  []F
}

// maxOfHash is the maximum number of flights per hash. It bounds the search in the table.
// A further flight detaches the first one, if possible one of its own namespace.
const maxOfHash = 8

// manyFlights is the number of flights from which the map is replaced after all flights
// have left it, because maps do not shrink.
const manyFlights = 1024

// None reports whether no flight can be joined. It needs no lock.
func (t *Table[F]) None() bool { return t.joinable.Load() == 0 }

// Find returns the flight of a key for which same returns true, if there is one.
func (t *Table[F]) Find(key kv.Key, same func(F) bool) (f F, ok bool) {
	b, ok := t.byHash[key.Hash]
	if !ok {
		return f, false
	}
	is := func(f F) bool { return sameKey(f.FlightKey(), key) && same(f) }
	if is(b.first) {
		return b.first, true
	}
	if i := slices.IndexFunc(b.more, is); i >= 0 {
		return b.more[i], true
	}
	return f, false
}

func sameKey(a, b kv.Key) bool {
	return a.Hash == b.Hash && a.Namespace == b.Namespace && string(a.Bytes) == string(b.Bytes)
}

// Add adds the flight that begin makes for a key. begin also stamps the flight. It must
// not call the table.
func (t *Table[F]) Add(key kv.Key, begin func() F) F {
	if b := t.byHash[key.Hash]; len(b.more) == maxOfHash-1 {
		gone := b.first
		if b.first.FlightKey().Namespace != key.Namespace {
			of := func(f F) bool { return f.FlightKey().Namespace == key.Namespace }
			if i := slices.IndexFunc(b.more, of); i >= 0 {
				gone = b.more[i]
			}
		}
		t.DetachOne(gone)
	}
	t.most = max(t.most, int(t.joinable.Add(1)))
	f := begin()
	if t.byHash == nil {
		t.byHash = map[kv.Hash]bucket[F]{}
	}
	b, some := t.byHash[key.Hash]
	if some {
		b.more = append(b.more, f)
	} else {
		b.first = f
	}
	t.byHash[key.Hash] = b
	return f
}

// Remove removes a flight that has ended, unless it has left the table before.
func (t *Table[F]) Remove(f F) {
	t.remove(f.FlightKey().Hash, func(o F) bool { return o == f })
}

// DetachOne detaches one flight.
func (t *Table[F]) DetachOne(f F) {
	t.detach(f.FlightKey().Hash, func(o F) bool { return o == f })
}

// Invalidate announces an invalidation of a hash, after the invalidation was stamped. It
// takes the lock. While no flight is in the table, it costs almost nothing.
func (t *Table[F]) Invalidate(h kv.Hash) {
	if t.None() {
		return
	}
	t.Lock()
	defer t.Unlock()
	t.detach(h, func(F) bool { return true })
}

// InvalidateIf detaches the flights of all keys for which match returns true: for a flush, or
// the end of an ownership. It takes the lock and visits every flight.
func (t *Table[F]) InvalidateIf(match func(kv.NamespaceID, kv.Hash) bool) {
	t.Lock()
	defer t.Unlock()
	for h := range t.byHash {
		t.detach(h, func(f F) bool { return match(f.FlightKey().Namespace, h) })
	}
}

func (t *Table[F]) detach(h kv.Hash, match func(F) bool) {
	t.remove(h, func(f F) bool {
		if !match(f) {
			return false
		}
		if t.Detached != nil {
			t.Detached(f)
		}
		return true
	})
}

// remove removes the flights of a hash that match.
func (t *Table[F]) remove(h kv.Hash, match func(F) bool) {
	b, ok := t.byHash[h]
	if !ok {
		return
	}
	before := len(b.more)
	b.more = slices.DeleteFunc(b.more, match)
	gone := before - len(b.more)
	left := true
	if match(b.first) {
		gone++
		if left = len(b.more) > 0; left {
			b.first = b.more[0]
			b.more = slices.Delete(b.more, 0, 1)
		}
	}
	if gone == 0 {
		return
	}
	if left {
		t.byHash[h] = b
	} else {
		delete(t.byHash, h)
	}
	if t.joinable.Add(-int64(gone)) == 0 && t.most > manyFlights {
		t.byHash, t.most = nil, 0
	}
}
