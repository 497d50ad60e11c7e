package segment

import (
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestKeptWhileOwnershipBegins checks that whoever looks at an entry while an ownership begins, or while it is
// adopted, finds it kept or owned: the sweep removes what is neither.
func TestKeptWhileOwnershipBegins(t *testing.T) {
	rounds := 300
	if testenv.Long() {
		rounds = 5000
	}
	for range rounds {
		s := &Store{
			sweep:       make(chan struct{}, 1),
			generations: make([]atomic.Uint32, kv.Partitions), kept: make([]atomic.Uint32, kv.Partitions),
		}
		for p := range s.kept { // as takeOver leaves them
			s.generations[p].Store(1)
			s.kept[p].Store(1)
		}
		left := header{} // an entry of the process before
		var begins atomic.Int32
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for p := begins.Load(); p < kv.Partitions; p = begins.Load() {
					if !s.isKept(left, uint16(p)) && !s.owned(left, uint16(p)) {
						t.Errorf("the entry of partition %d is neither kept nor owned", p)
					}
				}
			})
		}
		for p := range uint16(kv.Partitions) {
			begins.Store(int32(p))
			if !s.Adopt(p, s.NewOwnership(p)) {
				t.Errorf("partition %d is not adopted", p)
			}
		}
		begins.Store(kv.Partitions)
		readers.Wait()
	}
}
