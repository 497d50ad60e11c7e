package hits

import (
	"github.com/dgraph-io/ristretto/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/maypok86/otter/v2"
)

func newLRU(size int64, bytes bool) (Cache, error) {
	entries, used := size, int64(0)
	if bytes {
		entries = 1 << 40
	}
	c, err := simplelru.NewLRU(int(entries), func(_ uint64, size uint32) { used -= int64(size) + keySize })
	access := func(key uint64, length uint32) bool {
		if _, ok := c.Get(key); ok {
			return true
		}
		need := int64(length) + keySize
		if bytes && need > size {
			return false // it would evict all other entries and then itself
		}
		used += need
		c.Add(key, length)
		for bytes && used > size {
			c.RemoveOldest()
		}
		return false
	}
	return Cache{access, func() {}}, err
}

func newRistretto(size int64, bytes bool) (Cache, error) {
	counters := size * 10
	if bytes {
		counters = size / 20 // ten times the entries, at 200 bytes each
	}
	c, err := ristretto.NewCache(&ristretto.Config[uint64, uint32]{
		NumCounters: max(counters, 100), MaxCost: size, BufferItems: 64, IgnoreInternalCost: true,
	})
	access := func(key uint64, length uint32) bool {
		if _, ok := c.Get(key); ok {
			return true
		}
		cost := int64(1)
		if bytes {
			cost = int64(length) + keySize
		}
		c.Set(key, length, cost)
		c.Wait() // its best case: no set is dropped or late
		return false
	}
	return Cache{access, c.Close}, err
}

func newOtter(size int64, bytes bool) (Cache, error) {
	// Run its maintenance at once, in the caller's goroutine.
	o := &otter.Options[uint64, uint32]{Executor: func(f func()) { f() }}
	if bytes {
		o.MaximumWeight = uint64(size)
		o.Weigher = func(_ uint64, length uint32) uint32 { return length + keySize }
	} else {
		o.MaximumSize = int(size)
	}
	c, err := otter.New(o)
	access := func(key uint64, length uint32) bool {
		_, ok := c.GetIfPresent(key)
		if !ok {
			c.Set(key, length)
		}
		return ok
	}
	return Cache{access, func() { c.StopAllGoroutines() }}, err
}
