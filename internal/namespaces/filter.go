package namespaces

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// FilterConfig has the settings of a namespace's key filter.
type FilterConfig struct {
	Keys           int     // maximum number of existing keys; required
	FalsePositives float64 // share of absent keys that pass; zero: 0.01
	// After this time since the query began every key passes; zero: 1 h.
	MaxAge time.Duration
}

// filterStats counts since the start, except Keys, Age and InUse.
type filterStats struct {
	Keys    int64         // in the current filter, approximately
	Age     time.Duration // since the query of the current filter began
	InUse   bool
	Builds  uint64
	Refused uint64 // builds that found more keys than stated
	Denied  uint64 // keys that certainly do not exist
	Passed  uint64 // keys that the filter let pass
	Blind   uint64 // passed without a usable filter: none, too old, or distrusted
}

// Filter is the key filter: it knows which keys may exist, so that invented keys do not
// reach the origin. It is built by a query of all keys, and it rotates. Every write and
// invalidation announces its key with add. From before the query begins, an announced
// key goes into the filter that is being built and into the current one. An insert that
// is not announced stays hidden for at most MaxAge. The query must see everything that
// was committed before it began, so it must not read a lagging replica.
//
// Announcements can be missed: after a RESET, after a new epoch of another host, after a
// takeover from a dead owner: distrust marks a partition for this reason; then the
// partition lets every key pass until a filter is in use whose query began later. The
// caller of begin must be in contact with all hosts before it. Otherwise it must
// distrust all partitions when the contact returns.
//
// Filter is safe for concurrent use. mayExist and add take no lock. Times are readings of
// the boot clock.
type Filter struct {
	cfg        FilterConfig
	size       int64 // of one filter, bytes
	current    atomic.Pointer[build]
	building   atomic.Pointer[build]
	seq        atomic.Uint64   // counts calls of distrust
	distrusted []atomic.Uint64 // by partition: the seq of its last distrust

	builds, refused, denied, passed, blind atomic.Uint64
}

// build is one filter and the query that fills it.
type build struct {
	filter *Filter
	bloom  *bloom
	begun  time.Duration
	seq    uint64 // calls of distrust up to this one came before the query
	keys   atomic.Int64
}

// add adds a key: one that was announced, or that the query has returned.
func (b *build) add(h kv.Hash) {
	if b.bloom.add(h) {
		b.keys.Add(1)
	}
}

// NewFilter returns a Filter that was not built yet, so every key passes.
func NewFilter(cfg FilterConfig) (*Filter, error) {
	if cfg.FalsePositives == 0 {
		cfg.FalsePositives = 0.01
	}
	if cfg.MaxAge == 0 {
		cfg.MaxAge = time.Hour
	}
	if cfg.MaxAge < 0 {
		return nil, fmt.Errorf("a filter's greatest age of %v: give zero for 1h, or more", cfg.MaxAge)
	}
	first, err := newBloom(cfg.Keys, cfg.FalsePositives)
	if err != nil {
		return nil, err
	}
	return &Filter{cfg: cfg, size: int64(8 * len(first.words)), distrusted: make([]atomic.Uint64, kv.Partitions)}, nil
}

// Size returns the size of one filter in bytes. There are two filters during a build.
func (f *Filter) Size() int64 { return f.size }

// mayExist reports whether the origin may be asked for a key.
func (f *Filter) mayExist(h kv.Hash, now time.Duration) bool {
	b := f.current.Load()
	if b == nil || now-b.begun > f.cfg.MaxAge || f.distrusted[h.Partition()].Load() > b.seq {
		f.blind.Add(1)
		return true
	}
	if b.bloom.has(h) {
		f.passed.Add(1)
		return true
	}
	f.denied.Add(1)
	return false
}

// add announces a key: it may exist from now on. It loads building before current,
// because commit sets current before it clears building. So no key is lost between the
// two.
func (f *Filter) add(h kv.Hash) {
	if b := f.building.Load(); b != nil {
		b.add(h)
	}
	if b := f.current.Load(); b != nil {
		b.add(h)
	}
}

// distrust says that announcements of keys in a partition may have been missed.
func (f *Filter) distrust(partition uint16) {
	seq := f.seq.Add(1)
	for at := &f.distrusted[partition]; ; {
		if old := at.Load(); old >= seq || at.CompareAndSwap(old, seq) {
			return
		}
	}
}

// begin starts a build. It is called before the query is sent. If another build is in
// progress, ok is false.
func (f *Filter) begin(now time.Duration) (b *build, ok bool) {
	bloom, err := newBloom(f.cfg.Keys, f.cfg.FalsePositives)
	if err != nil {
		panic(err) // NewFilter has validated the arguments
	}
	next := &build{filter: f, bloom: bloom, begun: now, seq: f.seq.Load()}
	if !f.building.CompareAndSwap(nil, next) {
		return nil, false
	}
	return next, true
}

// full reports whether the query has returned more keys than stated.
func (b *build) full() bool { return b.keys.Load() > int64(b.filter.cfg.Keys) }

// commit makes the filter the current one, after the query has returned all its keys.
// It refuses a filter with more keys than stated, because it would let too many
// absent keys pass.
func (b *build) commit() error {
	k := b.filter
	if k.building.Load() != b {
		return fmt.Errorf("the filter's build has ended already")
	}
	if b.full() {
		k.refused.Add(1)
		k.building.CompareAndSwap(b, nil)
		return fmt.Errorf("the filter of existing keys was made for %d, and there are more: state more", k.cfg.Keys)
	}
	k.current.Store(b)
	k.building.CompareAndSwap(b, nil)
	k.builds.Add(1)
	return nil
}

// cancel ends the build if the query has failed. After commit it does nothing.
func (b *build) cancel() { b.filter.building.CompareAndSwap(b, nil) }

// stats returns the counts.
func (f *Filter) stats(now time.Duration) filterStats {
	s := filterStats{
		Builds: f.builds.Load(), Refused: f.refused.Load(),
		Denied: f.denied.Load(), Passed: f.passed.Load(), Blind: f.blind.Load(),
	}
	if b := f.current.Load(); b != nil {
		s.Keys, s.Age = b.keys.Load(), now-b.begun
		s.InUse = s.Age <= f.cfg.MaxAge
	}
	return s
}
