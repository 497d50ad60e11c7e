package namespaces

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// rebuilderConfig has the inputs of a rebuilder. All fields except Gap are required.
type rebuilderConfig struct {
	Filter *Filter
	Keys   loader.Lister
	Hash   func(key []byte) kv.Hash
	// Ready returns nil after every host was heard since the call. From then on all
	// announcements reach Filter.add.
	Ready func(ctx context.Context) error
	Now   func() time.Duration // the boot clock
	// Gap is the minimum time between two queries; zero: 10 s, but at most an eighth of
	// the filter's MaxAge.
	Gap time.Duration
}

// rebuilderStats has the counts of failed builds. filterStats has the counts of completed
// ones.
type rebuilderStats struct {
	Failures uint64        // since the start
	Err      error         // of the last build; nil if it succeeded, or if none has ended
	Took     time.Duration // duration of the last query that succeeded
	Running  bool          // a query is under way
}

// rebuilder repeats the query of all keys: before the filter reaches half of its maximum
// age, and soon after wake.
//
// Each wait has a random part. Otherwise hosts whose filters began at the same moment
// would stay in step; and the loss of a host wakes all others.
type rebuilder struct {
	cfg      rebuilderConfig
	interval time.Duration
	woken    chan struct{} // capacity one; a build that begins later consumes the signal

	mu    sync.Mutex
	stats rebuilderStats
}

// newRebuilder returns a rebuilder. It starts nothing; see run.
func newRebuilder(cfg rebuilderConfig) (*rebuilder, error) {
	if cfg.Filter == nil || cfg.Keys == nil || cfg.Hash == nil || cfg.Ready == nil || cfg.Now == nil {
		return nil, errors.New("rebuilder: give it the filter, a lister, a hash, a clock, and a way to wait for all " +
			"hosts")
	}
	if cfg.Gap < 0 {
		return nil, fmt.Errorf("rebuilder: a gap of %v: give zero for the default, or more", cfg.Gap)
	}
	if cfg.Gap == 0 {
		cfg.Gap = min(10*time.Second, cfg.Filter.cfg.MaxAge/8)
	}
	return &rebuilder{cfg: cfg, interval: cfg.Filter.cfg.MaxAge / 2, woken: make(chan struct{}, 1)}, nil
}

// wake requests a build that begins after the call, because a partition was distrusted.
// It may be called concurrently.
func (r *rebuilder) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// counts returns the counts.
func (r *rebuilder) counts() rebuilderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// run rebuilds the filter until ctx is done. It starts no goroutine.
func (r *rebuilder) run(ctx context.Context) {
	failures := 0
	for more := kv.Sleep(ctx, random(r.cfg.Gap)); more; {
		begun, err := r.build(ctx)
		if ctx.Err() != nil {
			return
		}
		r.note(err, time.Since(begun))
		if err == nil {
			failures = 0
			more = r.rest(ctx, begun)
		} else {
			more = kv.Sleep(ctx, r.cfg.Gap+loader.Backoff(failures, r.cfg.Gap, r.interval, rand.Float64()))
			failures++
		}
	}
}

// rest waits until the next build is due. It returns false if ctx is done.
func (r *rebuilder) rest(ctx context.Context, begun time.Time) bool {
	timer := time.NewTimer(time.Until(begun.Add(r.interval - random(r.interval/5))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-r.woken:
		return kv.Sleep(ctx, max(time.Until(begun.Add(r.cfg.Gap)), random(r.cfg.Gap)))
	}
}

// build runs one query and returns when the query began.
func (r *rebuilder) build(ctx context.Context) (begun time.Time, err error) {
	if err := r.cfg.Ready(ctx); err != nil {
		return begun, fmt.Errorf("the filter of existing keys waits for all hosts: %w", err)
	}
	select {
	case <-r.woken: // this build begins after that wake, so it also serves it
	default:
	}
	begun = time.Now()
	b, ok := r.cfg.Filter.begin(r.cfg.Now())
	if !ok {
		return begun, errors.New("the filter of existing keys: another build is under way")
	}
	defer b.cancel()
	r.running(true)
	defer r.running(false)
	err = r.cfg.Keys.Keys(ctx, func(key []byte) error {
		b.add(r.cfg.Hash(key))
		if b.full() {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return begun, fmt.Errorf("the filter of existing keys: %w", err)
	}
	return begun, b.commit()
}

// errFull ends a query that has returned more keys than stated.
var errFull = errors.New("more keys than stated")

func (r *rebuilder) running(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Running = yes
}

func (r *rebuilder) note(err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stats.Err = err; err != nil {
		r.stats.Failures++
		return
	}
	r.stats.Took = took
}

// random returns a uniform part of a duration.
func random(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}
