package l1

import (
	"math/bits"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// front holds the copies that were read last, each at the one place that its
// hash gives it. A read of ristretto takes a lock, a map and a buffer for its
// sketch; one here takes none of them, and every so many is passed on, so that
// the sketch still knows what is popular.
//
// What is here is in ristretto as well: it leaves when it leaves there.
type front []place

type place struct {
	copy atomic.Pointer[Copy]
	hits atomic.Int64 // counted where they fall, since one count for all would be fought for
}

// toldEvery is how many hits of a place ristretto is told one of.
const toldEvery = 16

// newFront returns one with a place for an eighth of the copies that fit.
func newFront(bytes int64) front {
	return make(front, 1<<bits.Len64(uint64(min(bytes/meanCost/8, 1<<14)-1)))
}

func (f front) at(h kv.Hash) *place { return &f[uint64(h)&uint64(len(f)-1)] }

// drop forgets a copy.
func (f front) drop(gone *Copy) { f.at(gone.Hash).copy.CompareAndSwap(gone, nil) }

func (f front) hits() (n int64) {
	for i := range f {
		n += f[i].hits.Load()
	}
	return n
}
