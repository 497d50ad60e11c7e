package loader

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// KnownConfig describes the filter of a namespace's existing keys.
type KnownConfig struct {
	Keys           int           // the most that exist; needed
	FalsePositives float64       // the share of absent keys that pass; zero: 0.01
	MaxAge         time.Duration // since the query began; after it everything passes. Zero: 1 h
}

// KnownStats counts since the start, but for Keys and Age.
type KnownStats struct {
	Keys    int64         // in the filter in use, about
	Age     time.Duration // since its query began
	InUse   bool
	Builds  uint64
	Refused uint64 // builds with more keys than stated
	Denied  uint64 // keys that surely do not exist
	Passed  uint64 // by the filter
	Blind   uint64 // passed since no filter counts: none, too old, or distrusted
}

// Known says which keys may exist, so that made-up ones never reach the origin.
// It is built by a query of all keys, and rotates: what is announced (every
// write and invalidation: Add) from before the query begins goes into the filter
// that is being built as well as into the one in use. An insert that nobody
// announces stays hidden for at most MaxAge. The query must see everything that
// was committed before it began: not a replica that lags.
//
// Announcements can be missed: after a RESET, a new epoch of another host, a
// take-over from a dead holder. Distrust says so of a partition, which then
// passes everything until a query begun later. Whoever calls Begin must be in
// touch with all hosts by then, else everything must be distrusted once it is.
//
// It is safe for concurrent use; MayExist and Add take no lock. Times are
// readings of the boot clock.
type Known struct {
	cfg        KnownConfig
	size       int64 // of a filter, in bytes
	current    atomic.Pointer[build]
	building   atomic.Pointer[build]
	seq        atomic.Uint64   // counts distrusts
	distrusted []atomic.Uint64 // by partition: the seq of its last

	builds, refused, denied, passed, blind atomic.Uint64
}

// build is one filter and its query.
type build struct {
	known *Known
	bloom *Bloom
	begun time.Duration
	seq   uint64 // distrusts up to it lie before the query
	keys  atomic.Int64
}

func (b *build) add(h kv.Hash) {
	if b.bloom.Add(h) {
		b.keys.Add(1)
	}
}

// NewKnown returns a Known without a filter: everything passes.
func NewKnown(cfg KnownConfig) (*Known, error) {
	if cfg.FalsePositives == 0 {
		cfg.FalsePositives = 0.01
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Hour
	}
	if cfg.MaxAge < 0 {
		return nil, fmt.Errorf("a filter's greatest age of %v: give zero for 1h, or more", cfg.MaxAge)
	}
	first, err := NewBloom(cfg.Keys, cfg.FalsePositives)
	if err != nil {
		return nil, err
	}
	return &Known{cfg: cfg, size: int64(8 * len(first.words)), distrusted: make([]atomic.Uint64, kv.Partitions)}, nil
}

// Size is what one filter takes, in bytes: there are two while one is built.
func (k *Known) Size() int64 { return k.size }

// MayExist says whether the origin may be asked for a key.
func (k *Known) MayExist(h kv.Hash, now time.Duration) bool {
	b := k.current.Load()
	if b == nil || now-b.begun > k.cfg.MaxAge || k.distrusted[h.Partition()].Load() > b.seq {
		k.blind.Add(1)
		return true
	}
	if b.bloom.Has(h) {
		k.passed.Add(1)
		return true
	}
	k.denied.Add(1)
	return false
}

// Add announces a key: it may exist from now on. First the one that is being
// built, which Commit makes the current one before it is no longer being built:
// so none is lost in between.
func (k *Known) Add(h kv.Hash) {
	if b := k.building.Load(); b != nil {
		b.add(h)
	}
	if b := k.current.Load(); b != nil {
		b.add(h)
	}
}

// Distrust says that announcements in a partition may have been missed.
func (k *Known) Distrust(partition uint16) {
	seq := k.seq.Add(1)
	for at := &k.distrusted[partition]; ; {
		if old := at.Load(); old >= seq || at.CompareAndSwap(old, seq) {
			return
		}
	}
}

// Build is a filter in the making.
type Build struct{ b *build }

// Begin is called before the query is sent. At most one is under way: ok is
// false while another is.
func (k *Known) Begin(now time.Duration) (b *Build, ok bool) {
	bloom, err := NewBloom(k.cfg.Keys, k.cfg.FalsePositives)
	if err != nil {
		panic(err) // NewKnown has tried
	}
	next := &build{known: k, bloom: bloom, begun: now, seq: k.seq.Load()}
	if !k.building.CompareAndSwap(nil, next) {
		return nil, false
	}
	return &Build{next}, true
}

// Add adds a key that the query has found.
func (b *Build) Add(h kv.Hash) { b.b.add(h) }

// full says whether the query has found more keys than stated already.
func (b *Build) full() bool { return b.b.keys.Load() > int64(b.b.known.cfg.Keys) }

// Commit puts the filter in use, once the query has given all its keys. With
// more keys than stated it would let through more than stated: it is refused.
func (b *Build) Commit() error {
	k := b.b.known
	if k.building.Load() != b.b {
		return fmt.Errorf("the filter's build has ended already")
	}
	if b.full() {
		k.refused.Add(1)
		k.building.CompareAndSwap(b.b, nil)
		return fmt.Errorf("the filter of existing keys was made for %d, and there are more: state more", k.cfg.Keys)
	}
	k.current.Store(b.b)
	k.building.CompareAndSwap(b.b, nil)
	k.builds.Add(1)
	return nil
}

// Cancel ends the build, where the query has failed. After Commit it does
// nothing.
func (b *Build) Cancel() { b.b.known.building.CompareAndSwap(b.b, nil) }

// Stats counts.
func (k *Known) Stats(now time.Duration) KnownStats {
	s := KnownStats{
		Builds: k.builds.Load(), Refused: k.refused.Load(),
		Denied: k.denied.Load(), Passed: k.passed.Load(), Blind: k.blind.Load(),
	}
	if b := k.current.Load(); b != nil {
		s.Keys, s.Age = b.keys.Load(), now-b.begun
		s.InUse = s.Age <= k.cfg.MaxAge
	}
	return s
}
