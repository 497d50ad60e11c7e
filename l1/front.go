package l1

import (
	"math/bits"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// front has the copies that were read last, each at the one place that its hash
// determines. A read of ristretto takes a lock, a map and a buffer for its sketch; a read
// of front takes none of them. One read in toldEvery is passed on to ristretto, so that
// its sketch still knows which copies are popular.
//
// Every copy in front is in ristretto as well. If it leaves ristretto, it leaves front.
type front []place

type place struct {
	copy atomic.Pointer[Copy]
	hits atomic.Int64 // per place, because a common counter would be contended
}

// toldEvery: ristretto is told of one in this many hits of a place.
const toldEvery = 16

// newFront returns a front with one place for eight copies that fit.
func newFront(bytes int64) front {
	return make(front, 1<<bits.Len64(uint64(min(bytes/meanCost/8, 1<<14)-1)))
}

func (f front) at(h kv.Hash) *place { return &f[uint64(h)&uint64(len(f)-1)] }

// drop removes a copy.
func (f front) drop(gone *Copy) { f.at(gone.Hash).copy.CompareAndSwap(gone, nil) }

func (f front) hits() (n int64) {
	for i := range f {
		n += f[i].hits.Load()
	}
	return n
}
