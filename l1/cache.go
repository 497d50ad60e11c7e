package l1

import (
	"cmp"
	"fmt"
	"math/bits"
	"strings"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Config sizes a Cache. Zero means the default.
type Config struct {
	// Bytes bounds the memory of copies, in bytes, overhead included. Default 64 MiB,
	// at least 1 MiB. An update of a key can exceed it for a moment.
	Bytes int64
	// MaxValue is the longest value that is kept, in bytes. Default 64 KiB: a few
	// long values must not push out thousands of short ones.
	MaxValue int
}

// Defaults.
const (
	DefaultBytes    = 64 << 20
	DefaultMaxValue = 64 << 10
	minBytes        = 1 << 20
)

// Copy is an entry of another host as its owner attested it. It is immutable.
type Copy struct {
	Hash      kv.Hash
	Namespace kv.NamespaceID
	keyLen    uint16
	kv.Facts
	Owner *kv.Process   // the process that attested it; shared by its copies
	AsOf  kv.Version    // attested at, on the owner's clock
	Since time.Duration // when the owner was asked, on this host's boot clock
	bytes string        // key and value; as a slice they would take a word more, and a Copy 96 bytes
}

// SetBytes gives the copy its own bytes of key and value.
func (cp *Copy) SetBytes(key, value []byte) {
	var b strings.Builder
	b.Grow(len(key) + len(value))
	b.Write(key)
	b.Write(value)
	cp.bytes, cp.keyLen = b.String(), uint16(len(key))
}

// Key and Value return what the copy is of. The caller must not change the bytes.
func (cp *Copy) Key() string { return cp.bytes[:cp.keyLen] }
func (cp *Copy) Value() []byte {
	return unsafe.Slice(unsafe.StringData(cp.bytes), len(cp.bytes))[cp.keyLen:]
}

// overhead is what a copy takes besides its bytes: the Copy (80 bytes), and 130 to 150
// bytes in ristretto's maps and its admission sketch.
const overhead = 220

// cost charges the allocator's size class, about 1/8 above the bytes.
func (cp *Copy) cost() int64 { return sizeClass(len(cp.bytes)) + overhead }

func sizeClass(n int) int64 {
	if n <= 16 {
		return 16
	}
	step := 1 << max(bits.Len(uint(n-1))-3, 4) // eight classes per doubling
	return int64((n + step - 1) / step * step)
}

// Cache is safe for concurrent use until Close.
type Cache struct {
	cfg   Config
	store *ristretto.Cache[uint64, *Copy]
	front front

	puts    atomic.Uint64
	pending atomic.Int64 // bytes handed to ristretto since it last caught up

	hits, misses, refused atomic.Int64 // hits does not include the hits of front
	entries, bytes        atomic.Int64
}

// New returns an empty cache.
func New(cfg Config) (*Cache, error) {
	cfg.Bytes, cfg.MaxValue = cmp.Or(cfg.Bytes, DefaultBytes), cmp.Or(cfg.MaxValue, DefaultMaxValue)
	if cfg.Bytes < minBytes || cfg.MaxValue < 1 {
		return nil, fmt.Errorf("l1: %d bytes with values of up to %d: give at least %d and 1",
			cfg.Bytes, cfg.MaxValue, minBytes)
	}
	c := &Cache{cfg: cfg, front: newFront(cfg.Bytes)}
	var err error
	c.store, err = ristretto.NewCache(&ristretto.Config[uint64, *Copy]{
		NumCounters:        max(cfg.Bytes/meanCost*10, 1000), // ten per copy that fits
		MaxCost:            cfg.Bytes,
		BufferItems:        64,
		IgnoreInternalCost: true, // our estimate is closer
		OnExit: func(gone *Copy) {
			if gone != nil {
				c.front.drop(gone)
				c.entries.Add(-1)
				c.bytes.Add(-gone.cost())
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("l1: %w", err)
	}
	return c, nil
}

// meanCost is the expected cost of a copy, for sizing.
const meanCost = 512

// catchUpEvery: ristretto applies puts in the background and drops new ones when it is
// behind. Waiting for it once in this many puts gives the best hit ratio.
const catchUpEvery = 32

// Get returns the copy of a key. The caller must not change the copy, and must check
// whether it may be served.
func (c *Cache) Get(k kv.Key) (*Copy, bool) {
	p := c.front.at(k.Hash)
	if got := p.copy.Load(); got != nil && got.is(k) {
		if p.hits.Add(1)%toldEvery == 0 {
			c.store.Get(uint64(k.Hash))
		}
		return got, true
	}
	got, ok := c.store.Get(uint64(k.Hash))
	if !ok || got == nil || !got.is(k) {
		c.misses.Add(1)
		return nil, false
	}
	c.hits.Add(1)
	p.copy.Store(got)
	if now, _ := c.store.Get(uint64(k.Hash)); now != got {
		c.front.drop(got) // it left ristretto just before it came to the front
	}
	return got, true
}

// Touched notes a read of a key that was answered elsewhere, so that a copy is not evicted as an
// unused one. It is no lookup.
func (c *Cache) Touched(h kv.Hash) { c.store.Get(uint64(h)) }

// is reports whether the copy is of a key. The hash alone is no proof, and ristretto
// compares nothing else.
func (cp *Copy) is(k kv.Key) bool {
	return cp.Hash == k.Hash && cp.Namespace == k.Namespace && cp.Key() == string(k.Bytes)
}

// Put offers a copy. The caller must not change the copy from now on. The cache may keep
// it later, or never.
func (c *Cache) Put(n *Copy) {
	if len(n.Value()) > c.cfg.MaxValue {
		c.refused.Add(1)
		return
	}
	cost := n.cost()
	c.entries.Add(1)
	c.bytes.Add(cost)
	if !c.store.Set(uint64(n.Hash), n, cost) {
		c.entries.Add(-1)
		c.bytes.Add(-cost)
		c.refused.Add(1)
	}
	if c.pending.Add(cost) > c.cfg.Bytes/8 || c.puts.Add(1)%catchUpEvery == 0 {
		c.pending.Store(0)
		c.store.Wait()
	}
}

// Replace is Put if the key has a copy; otherwise it does nothing.
func (c *Cache) Replace(n *Copy) {
	if _, ok := c.store.Get(uint64(n.Hash)); ok {
		c.Put(n)
	}
}

// Outdate drops the copy of a key, soon, if it was attested before version v. This only
// frees memory: whether a copy may be served is decided when it is read.
func (c *Cache) Outdate(h kv.Hash, v kv.Version) {
	// Unlike Get, GetTTL does not count as a use.
	if _, there := c.store.GetTTL(uint64(h)); !there {
		return
	}
	if got, ok := c.store.Get(uint64(h)); ok && got != nil && got.AsOf < v {
		c.store.Del(uint64(h))
	}
}

// Wait returns when all earlier puts are applied or dropped.
func (c *Cache) Wait() { c.store.Wait() }

// Clear drops all copies, soon.
func (c *Cache) Clear() { c.store.Clear() }

// Close ends the cache. It must not be used afterwards.
func (c *Cache) Close() { c.store.Close() }

// Stats is the account of a cache.
type Stats struct {
	cachesidecar.L1Stats       // without Refused: whether a copy is outdated is not known here
	NotKept              int64 // puts that were too long, or dropped because puts came too fast
}

// Stats returns the account.
func (c *Cache) Stats() Stats {
	return Stats{cachesidecar.L1Stats{
		Entries: c.entries.Load(), Used: c.bytes.Load(), Limit: c.cfg.Bytes,
		Hits: c.hits.Load() + c.front.hits(), Misses: c.misses.Load(),
	}, c.refused.Load()}
}
