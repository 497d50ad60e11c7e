// Package keyfilter answers for an owner whether the origin of a namespace may have a key.
//
// A namespace may have a filter of the keys that its origin has, so that requests for
// made-up keys never reach the origin. Every host builds its own filter with a query of
// all keys, and it rotates. Only the owner of a key may answer from the filter that the key does not
// exist. A host that has owned the partition since before the query began has itself made
// every change that was announced since then, and each of these keys is in the filter
// before its change is acknowledged.
//
//	changed, loaded   the key may exist: it is added
//	Begin             other hosts may have changed keys of the partitions: these pass
//	RESET, FloorRaised  the same, after a split
//	FLUSH             anything may have changed: the namespace passes
//
// They pass until a filter is in use whose query began later. An insert that is not announced stays
// hidden for at most MaxAge. The query must see everything that was committed before it began, so it
// must not read a lagging replica.
//
// Input is the listing of the origin and the changes of keys that the host hears of. Output is
// MayExist, and the filter's part of STATS. Run is a goroutine of the caller.
//
// The package opens no origin (package origin), and does not know which host owns a key
// (package engine).
package keyfilter

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Settings is the settings of a key filter.
type Settings struct {
	Keys           int           // maximum number of existing keys; required
	FalsePositives float64       // share of absent keys that pass; zero: 0.01
	MaxAge         time.Duration // since the query began; then every key passes; zero: 1 h
	loader.List
}

// Size returns the size of one filter in bytes. There are two filters during a build.
func (s *Settings) Size() (int64, error) {
	if s.MaxAge < 0 {
		return 0, fmt.Errorf("a filter's greatest age of %v: give zero for 1h, or more", s.MaxAge)
	}
	words, err := bloomWords(s.Keys, s.share())
	return 8 * int64(words), err
}

// Listed returns the list, which may give keys twice, and a few more.
func (s *Settings) Listed() loader.List {
	list := s.List
	list.Most = 2*s.Keys + 1000
	return list
}

func (s *Settings) share() float64 { return cmp.Or(s.FalsePositives, 0.01) }

// Filter is the key filter of a namespace. It is safe for concurrent use. MayExist and Add take no
// lock. Times are readings of the boot clock.
type Filter struct {
	of     Settings
	maxAge time.Duration
	list   loader.Lister
	hash   func(key []byte) kv.Hash
	now    func() time.Duration
	// ready returns nil after every host was heard since the call. From then on all
	// announcements reach Add.
	ready func(context.Context) error

	woken  chan struct{}               // capacity one; a build that begins later consumes the signal
	end    context.Context             // of Run
	stop   context.CancelFunc          // ends Run
	before cachesidecar.KeyFilterStats // counts of the filters of the namespace before this one

	current    atomic.Pointer[build]
	building   atomic.Pointer[build]
	seq        atomic.Uint64   // counts calls of distrust
	distrusted []atomic.Uint64 // by partition: the seq of its last distrust

	builds, failures, denied, passed, blind atomic.Int64

	mu      sync.Mutex
	err     error         // of the last build; nil if it succeeded, or if none has ended
	took    time.Duration // the last query that succeeded
	running bool          // a query is under way
}

// build is one filter and the query that fills it.
type build struct {
	bloom *bloom
	most  int64 // keys
	begun time.Duration
	seq   uint64 // calls of distrust up to this one came before the query
	keys  atomic.Int64
}

// add adds a key: one that was announced, or that the query has returned.
func (bld *build) add(h kv.Hash) {
	if bld.bloom.add(h) {
		bld.keys.Add(1)
	}
}

// full returns an error if there are more keys than stated: too many absent ones would pass.
func (bld *build) full() error {
	if bld.keys.Load() > bld.most {
		return fmt.Errorf("the filter of existing keys was made for %d, and there are more: state more", bld.most)
	}
	return nil
}

// New makes the filter of a name whose origin lists the keys. It was not built yet, so every key
// passes. ready is Parts.CaughtUp.
func New(
	of Settings, list loader.Lister, seed uint64, clock kv.Clock, ready func(context.Context) error,
) (*Filter, error) {
	if _, err := of.Size(); err != nil {
		return nil, err
	}
	k := &Filter{
		of: of, maxAge: cmp.Or(of.MaxAge, time.Hour), list: list, ready: ready, woken: make(chan struct{}, 1),
		hash:       func(key []byte) kv.Hash { return kv.HashKey(seed, key) },
		now:        func() time.Duration { return clock.Read().Boot },
		distrusted: make([]atomic.Uint64, kv.Partitions),
	}
	k.end, k.stop = context.WithCancel(context.Background())
	return k, nil
}

// MayExist reports whether the origin may be asked for a key. It does not check whether the filter has
// heard of all changes.
func (k *Filter) MayExist(h kv.Hash) bool {
	b := k.current.Load()
	if b == nil || k.now()-b.begun > k.maxAge || k.distrusted[h.Partition()].Load() > b.seq {
		k.blind.Add(1)
		return true
	}
	if b.bloom.has(h) {
		k.passed.Add(1)
		return true
	}
	k.denied.Add(1)
	return false
}

// Add notes that a key may exist from now on: the filter that is being built gets it, and the current
// one. It loads building before current, because build sets current before it clears building. So no
// key is lost between the two. It may be called on nil.
func (k *Filter) Add(h kv.Hash) {
	if k == nil {
		return
	}
	if b := k.building.Load(); b != nil {
		b.add(h)
	}
	if b := k.current.Load(); b != nil {
		b.add(h)
	}
}

// Missed notes that other hosts may have changed keys of some partitions.
func (k *Filter) Missed(set kv.PartitionSet) {
	for p := range set.All() {
		k.distrust(p)
	}
	k.wake()
}

// Forget notes that any key may have changed. It may be called on nil.
func (k *Filter) Forget() {
	if k == nil {
		return
	}
	for p := range uint16(kv.Partitions) {
		k.distrust(p)
	}
	k.wake()
}

// distrust says that announcements of keys in a partition may have been missed.
func (k *Filter) distrust(partition uint16) {
	seq := k.seq.Add(1)
	for at := &k.distrusted[partition]; ; {
		if old := at.Load(); old >= seq || at.CompareAndSwap(old, seq) {
			return
		}
	}
}

// wake requests a build that begins after the call, because a partition was distrusted.
func (k *Filter) wake() {
	select {
	case k.woken <- struct{}{}:
	default:
	}
}

// Close ends Run.
func (k *Filter) Close() { k.stop() }

// Run builds the filter until ctx ends, or until a reload puts another filter in its place: before it
// reaches half of its maximum age, and soon after a wake. It is called once, and starts no goroutine.
//
// Each wait has a random part. Otherwise hosts whose filters began at the same moment
// would stay in step; and the loss of a host wakes all others.
func (k *Filter) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.end, cancel)()
	failures, gap := 0, k.gap()
	for more := kv.Sleep(ctx, random(gap)); more; {
		begun, err := k.build(ctx)
		if ctx.Err() != nil {
			return
		}
		k.noteBuild(err, time.Since(begun))
		if err == nil {
			failures = 0
			more = k.awaitBuild(ctx, begun)
		} else {
			more = kv.Sleep(ctx, gap+loader.Backoff(failures, gap, k.maxAge/2, rand.Float64()))
			failures++
		}
	}
}

// gap is the minimum time between two queries.
func (k *Filter) gap() time.Duration { return min(10*time.Second, k.maxAge/8) }

// awaitBuild waits until the next build is due. It returns false if ctx is done.
func (k *Filter) awaitBuild(ctx context.Context, begun time.Time) bool {
	timer := time.NewTimer(time.Until(begun.Add(k.maxAge/2 - random(k.maxAge/10))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-k.woken:
		return kv.Sleep(ctx, max(time.Until(begun.Add(k.gap())), random(k.gap())))
	}
}

// build runs one query and returns when the query began.
func (k *Filter) build(ctx context.Context) (begun time.Time, err error) {
	if err := k.ready(ctx); err != nil {
		return begun, fmt.Errorf("the filter of existing keys waits for all hosts: %w", err)
	}
	select {
	case <-k.woken: // this build begins after that wake, so it also serves it
	default:
	}
	begun = time.Now()
	b := k.beginBuild()
	defer k.building.Store(nil)
	k.mu.Lock()
	k.running = true
	k.mu.Unlock()
	err = k.list.Keys(ctx, func(key []byte) error {
		b.add(k.hash(key))
		return b.full()
	})
	full := b.full()
	if err != nil && full == nil {
		return begun, fmt.Errorf("the filter of existing keys: %w", err)
	}
	if full == nil {
		k.current.Store(b)
		k.builds.Add(1)
	}
	return begun, full
}

// beginBuild has announced keys go into a filter that is built from now on, by a query that begins later.
func (k *Filter) beginBuild() *build {
	words, _ := bloomWords(k.of.Keys, k.of.share()) // New has validated them
	b := &build{bloom: newBloom(words, k.of.share()), most: int64(k.of.Keys), begun: k.now(), seq: k.seq.Load()}
	k.building.Store(b)
	return b
}

func (k *Filter) noteBuild(err error, took time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.running = false
	if k.err = err; err != nil {
		k.failures.Add(1)
		return
	}
	k.took = took
}

// random returns a uniform part of a duration.
func random(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}

// ContinueCounts makes the counts go on from those of the filter of the namespace before this one; nil: there is none.
func (k *Filter) ContinueCounts(old *Filter) { k.before = old.Stats() }

// Stats returns the filter's part of STATS. It may be called on nil, and then returns zero.
func (k *Filter) Stats() (s cachesidecar.KeyFilterStats) {
	if k == nil {
		return s
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	s = cachesidecar.KeyFilterStats{
		Configured: true, Building: k.running, TookMS: k.took.Milliseconds(),
		Builds: k.builds.Load() + k.before.Builds, Failures: k.failures.Load() + k.before.Failures,
		Denied: k.denied.Load() + k.before.Denied, Passed: k.passed.Load() + k.before.Passed,
		Blind: k.blind.Load() + k.before.Blind,
	}
	if b := k.current.Load(); b != nil {
		age := k.now() - b.begun
		s.Keys, s.AgeMS, s.InUse = b.keys.Load(), age.Milliseconds(), age <= k.maxAge
	}
	if s.InUse {
		s.UsableKeys = s.Keys
	}
	if k.err != nil {
		s.Error = k.err.Error()
	}
	return s
}
