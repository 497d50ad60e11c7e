package namespaces

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A namespace may have a filter of the keys that its origin has, so that requests for
// made-up keys never reach the origin. Every host builds its own filter with a query of
// all keys. Only the owner of a key may answer from the filter that the key does not
// exist. A host that has owned the partition since before the query began has itself made
// every change that was announced since then, and each of these keys is in the filter
// before its change is acknowledged.
//
//	changed, loaded   the key may exist: it is added
//	Begin             other hosts may have changed keys of the partitions: these pass
//	RESET, Raised     the same, after a split
//	FLUSH             anything may have changed: the namespace passes
//
// They pass until a query that begins later is done.

// KeyFilter is the key filter of a namespace.
type KeyFilter struct {
	filter  *Filter
	builder *rebuilder
	now     func() time.Duration // the boot clock
	end     context.Context      // of Run
	stop    context.CancelFunc
	before  cachesidecar.KeyFilterStats // counts of the filters of the namespace before this one
}

// Run builds the filter until ctx ends, or until a reload puts another filter in its
// place.
func (k *KeyFilter) Run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(k.end, cancel)()
	k.builder.run(ctx)
}

// newKeyFilter makes the filter of a name whose origin lists the keys. caughtUp is
// Parts.CaughtUp.
func newKeyFilter(
	cfg *Config, of FilterConfig, name string, origin *Origin, caughtUp func(context.Context) error,
) (*KeyFilter, error) {
	filter, err := NewFilter(of)
	if err != nil {
		return nil, err
	}
	seed := kv.NamespaceSeed(cfg.Seed, name)
	now := func() time.Duration { return cfg.Clock.Read().Boot }
	builder, err := newRebuilder(rebuilderConfig{
		Filter: filter,
		Keys:   followedLister{origin.existing, origin.lists},
		Hash:   func(key []byte) kv.Hash { return kv.HashKey(seed, key) },
		Ready:  caughtUp,
		Now:    now,
	})
	if err != nil {
		return nil, err
	}
	k := &KeyFilter{filter: filter, builder: builder, now: now}
	k.end, k.stop = context.WithCancel(context.Background())
	return k, nil
}

// followedLister notes the result of each listing, and returns errors that may be shown to
// apps.
type followedLister struct {
	loader.Lister
	of *Health
}

func (l followedLister) Keys(ctx context.Context, each func(key []byte) error) error {
	began := time.Now()
	err := l.Lister.Keys(ctx, each)
	if err == nil {
		l.of.succeeded()
		l.of.log.Debug("the filter of existing keys has all keys", "took", time.Since(began))
		return nil
	}
	why, line := manner(err)+cause(err), ""
	if ctx.Err() == nil {
		line = l.of.failed(err, why)
	}
	return Hidden{err, why + line}
}

// Add notes that a key may exist from now on. It may be called on nil.
func (k *KeyFilter) Add(h kv.Hash) {
	if k != nil {
		k.filter.add(h)
	}
}

// MayExist asks the filter. It does not check whether the filter has heard of all
// changes.
func (k *KeyFilter) MayExist(key kv.Key) bool { return k.filter.mayExist(key.Hash, k.now()) }

// Missed notes that other hosts may have changed keys of some partitions.
func (k *KeyFilter) Missed(set kv.PartitionSet) {
	for p := range set.All() {
		k.filter.distrust(p)
	}
	k.builder.wake()
}

// Forget notes that any key may have changed. It may be called on nil.
func (k *KeyFilter) Forget() {
	if k == nil {
		return
	}
	for p := range uint16(kv.Partitions) {
		k.filter.distrust(p)
	}
	k.builder.wake()
}

// KeyFilterStats returns the filter's part of STATS; zero without a filter.
func (ns *Namespace) KeyFilterStats() (s cachesidecar.KeyFilterStats) {
	if ns.KeyFilter == nil {
		return s
	}
	before := &ns.KeyFilter.before
	f, b := ns.KeyFilter.filter.stats(ns.KeyFilter.now()), ns.KeyFilter.builder.counts()
	s = cachesidecar.KeyFilterStats{
		Configured: true, InUse: f.InUse, Keys: f.Keys, AgeMS: f.Age.Milliseconds(),
		Building: b.Running, TookMS: b.Took.Milliseconds(),
		Builds: int64(f.Builds) + before.Builds, Failures: int64(b.Failures) + before.Failures,
		Denied: int64(f.Denied) + before.Denied, Passed: int64(f.Passed) + before.Passed,
		Blind: int64(f.Blind) + before.Blind,
	}
	if f.InUse {
		s.UsableKeys = f.Keys
	}
	if b.Err != nil {
		s.Error = b.Err.Error()
	}
	return s
}
