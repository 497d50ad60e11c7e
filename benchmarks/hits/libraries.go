package hits

import (
	"github.com/dgraph-io/ristretto/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/maypok86/otter/v2"
)

type lru struct {
	cache *simplelru.LRU[uint64, uint32]
	size  int64 // bytes; zero if entries are counted
	used  int64 // bytes
}

func newLRU(size int64, bytes bool) (Cache, error) {
	c := &lru{}
	entries := size
	if bytes {
		c.size, entries = size, 1<<40
	}
	var err error
	c.cache, err = simplelru.NewLRU(int(entries), func(_ uint64, size uint32) { c.used -= int64(size) + keySize })
	return c, err
}

func (c *lru) Access(key uint64, size uint32) bool {
	if _, ok := c.cache.Get(key); ok {
		return true
	}
	need := int64(size) + keySize
	if c.size > 0 && need > c.size {
		return false // it would evict all other entries and then itself
	}
	c.used += need
	c.cache.Add(key, size)
	for c.size > 0 && c.used > c.size {
		c.cache.RemoveOldest()
	}
	return false
}

func (c *lru) Close() {}

type ristrettoCache struct {
	cache *ristretto.Cache[uint64, uint32]
	bytes bool
}

func newRistretto(size int64, bytes bool) (Cache, error) {
	counters := size * 10
	if bytes {
		counters = size / 20 // ten times the entries, at 200 bytes each
	}
	c, err := ristretto.NewCache(&ristretto.Config[uint64, uint32]{
		NumCounters: max(counters, 100), MaxCost: size, BufferItems: 64, IgnoreInternalCost: true,
	})
	return &ristrettoCache{c, bytes}, err
}

func (c *ristrettoCache) Access(key uint64, size uint32) bool {
	if _, ok := c.cache.Get(key); ok {
		return true
	}
	cost := int64(1)
	if c.bytes {
		cost = int64(size) + keySize
	}
	c.cache.Set(key, size, cost)
	c.cache.Wait() // its best case: no set is dropped or late
	return false
}

func (c *ristrettoCache) Close() { c.cache.Close() }

type otterCache struct{ cache *otter.Cache[uint64, uint32] }

func newOtter(size int64, bytes bool) (Cache, error) {
	// Run its maintenance at once, in the caller's goroutine.
	o := &otter.Options[uint64, uint32]{Executor: func(f func()) { f() }}
	if bytes {
		o.MaximumWeight = uint64(size)
		o.Weigher = func(_ uint64, size uint32) uint32 { return size + keySize }
	} else {
		o.MaximumSize = int(size)
	}
	c, err := otter.New(o)
	return &otterCache{c}, err
}

func (c *otterCache) Access(key uint64, size uint32) bool {
	if _, ok := c.cache.GetIfPresent(key); ok {
		return true
	}
	c.cache.Set(key, size)
	return false
}

func (c *otterCache) Close() { c.cache.StopAllGoroutines() }
