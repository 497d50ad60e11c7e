// Package hits replays traces against cache policies: plain LRU, ristretto,
// otter, and the segment store through its public API. Every request is a get;
// a miss is followed by a set. One goroutine; no warm-up is cut off.
package hits

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/hashicorp/golang-lru/v2/simplelru"
	"github.com/maypok86/otter/v2"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Policy makes caches that hold size entries, or size bytes of keys and values
// where bytes is set.
type Policy struct {
	Name string
	New  func(size int64, bytes bool) (Cache, error)
}

// Cache is one cache under replay.
type Cache interface {
	// Access gets a key and, where it is missing, sets a value of size bytes.
	// It says whether the key was there.
	Access(key uint64, size uint32) bool
	Close()
}

// Policies are what is compared, in the order of the tables.
var Policies = []Policy{
	{"LRU", newLRU},
	{"ristretto", newRistretto},
	{"otter", newOtter},
	{"l2/segment", newSegment},
}

const keySize = 8

type lru struct {
	cache *simplelru.LRU[uint64, uint32]
	left  int64 // bytes; unused where entries are counted
	bytes bool
}

func newLRU(size int64, bytes bool) (Cache, error) {
	c := &lru{left: size, bytes: bytes}
	entries := size
	if bytes {
		entries = 1 << 40
	}
	var err error
	c.cache, err = simplelru.NewLRU(int(entries), func(_ uint64, size uint32) { c.left += int64(size) + keySize })
	return c, err
}

func (c *lru) Access(key uint64, size uint32) bool {
	if _, ok := c.cache.Get(key); ok {
		return true
	}
	c.left -= int64(size) + keySize
	c.cache.Add(key, size)
	for c.bytes && c.left < 0 {
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
	c.cache.Wait() // its best case: no set is dropped, none is late
	return false
}

func (c *ristrettoCache) Close() { c.cache.Close() }

type otterCache struct{ cache *otter.Cache[uint64, uint32] }

func newOtter(size int64, bytes bool) (Cache, error) {
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

func (c *otterCache) Close() {}

// segmentCache drives the store as the sidecar does: with a TTL, and with the
// value's bytes copied in and out.
type segmentCache struct {
	store *segment.Store
	bytes bool
	value []byte
	buf   []byte
	key   [keySize]byte
	now   kv.Moment
}

// Where entries are counted, all have one size and a segment holds a whole
// number of them, so that the capacity is exact. A shard has at least 128
// segments, as in the product, while that leaves four entries to each.
const (
	unitValue = 12
	unitEntry = 24 + keySize + unitValue // header, key, value
	segments  = 128
)

func newSegment(size int64, bytes bool) (Cache, error) {
	cfg := segment.Config{Size: size, Versions: kv.NewHLC(1)}
	if !bytes {
		per := max(4, size/segments)
		cfg = segment.Config{Segments: int(size / per), SegmentSize: int(per) * unitEntry, Shards: 1, Versions: kv.NewHLC(1)}
	}
	s, err := segment.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("%d entries or bytes: %w", size, err)
	}
	s.SetNamespace(0, 1, 0)
	c := &segmentCache{store: s, bytes: bytes, value: make([]byte, unitValue), now: kv.Moment{Wall: 1, Boot: time.Hour}}
	return c, nil
}

func (c *segmentCache) Access(key uint64, size uint32) bool {
	binary.LittleEndian.PutUint64(c.key[:], key)
	k := kv.Key{Hash: kv.HashKey(1, c.key[:]), Bytes: c.key[:]}
	c.now.Boot += time.Microsecond
	var ok bool
	if c.buf, _, ok = c.store.Get(c.buf[:0], k, segment.NoLimit, c.now.Boot); ok {
		return true
	}
	if c.bytes {
		if int(size) > len(c.value) {
			c.value = make([]byte, size)
		}
		c.value = c.value[:size]
	}
	c.store.Put(k, segment.Write{Value: c.value, Deadline: kv.After(c.now.Boot, time.Hour)}, c.now)
	return false
}

func (c *segmentCache) Close() { _ = c.store.Close() }
