package loader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// RebuilderConfig describes who keeps a Known filled. All but Gap are needed.
type RebuilderConfig struct {
	Known *Known
	Keys  Lister
	Hash  func(key []byte) kv.Hash
	// Ready returns nil once every host was heard after the call: what is
	// announced from then on comes to Known.Add.
	Ready func(ctx context.Context) error
	Now   func() time.Duration // the boot clock
	// Gap is the least time between two queries; zero: 10 s, but at most an
	// eighth of the filter's greatest age.
	Gap time.Duration
}

// RebuilderStats counts; Known's stats have the builds that were done.
type RebuilderStats struct {
	Failures uint64        // since the start
	Err      error         // of the last build; nil if it was done, or none has ended
	Took     time.Duration // the query of the last build that was done
	Running  bool          // a query is under way
}

// Rebuilder queries all keys again and again: before the filter is half as old
// as it may be, and soon after Wake.
//
// Hosts whose filters were begun at the same moment would stay in step, and a
// host's loss wakes all others: so each wait has a random part.
type Rebuilder struct {
	cfg      RebuilderConfig
	interval time.Duration
	wake     chan struct{} // holds one: a build that begins later has seen it

	mu    sync.Mutex
	stats RebuilderStats
}

// NewRebuilder starts nothing.
func NewRebuilder(cfg RebuilderConfig) (*Rebuilder, error) {
	if cfg.Known == nil || cfg.Keys == nil || cfg.Hash == nil || cfg.Ready == nil || cfg.Now == nil {
		return nil, errors.New("rebuilder: give it the filter, a lister, a hash, a clock, and a way to wait for all hosts")
	}
	if cfg.Gap < 0 {
		return nil, fmt.Errorf("rebuilder: a gap of %v: give zero for the default, or more", cfg.Gap)
	}
	if cfg.Gap == 0 {
		cfg.Gap = min(10*time.Second, cfg.Known.cfg.MaxAge/8)
	}
	return &Rebuilder{cfg: cfg, interval: cfg.Known.cfg.MaxAge / 2, wake: make(chan struct{}, 1)}, nil
}

// Wake asks for a build that begins after the call: something was distrusted.
func (r *Rebuilder) Wake() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Stats counts.
func (r *Rebuilder) Stats() RebuilderStats {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stats
}

// Run builds until ctx is done. It has no goroutine of its own.
func (r *Rebuilder) Run(ctx context.Context) {
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
			more = kv.Sleep(ctx, r.cfg.Gap+Backoff(failures, r.cfg.Gap, r.interval, rand.Float64()))
			failures++
		}
	}
}

// rest waits for the time of the next build.
func (r *Rebuilder) rest(ctx context.Context, begun time.Time) bool {
	timer := time.NewTimer(time.Until(begun.Add(r.interval - random(r.interval/5))))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-r.wake:
		return kv.Sleep(ctx, max(time.Until(begun.Add(r.cfg.Gap)), random(r.cfg.Gap)))
	}
}

// build queries once, and says when its query began.
func (r *Rebuilder) build(ctx context.Context) (begun time.Time, err error) {
	if err := r.cfg.Ready(ctx); err != nil {
		return begun, fmt.Errorf("the filter of existing keys waits for all hosts: %w", err)
	}
	select {
	case <-r.wake: // what it was for lies before this build
	default:
	}
	begun = time.Now()
	b, ok := r.cfg.Known.Begin(r.cfg.Now())
	if !ok {
		return begun, errors.New("the filter of existing keys: another build is under way")
	}
	defer b.Cancel()
	r.running(true)
	defer r.running(false)
	err = r.cfg.Keys.Keys(ctx, func(key []byte) error {
		b.Add(r.cfg.Hash(key))
		if b.full() {
			return errFull
		}
		return nil
	})
	if err != nil && !errors.Is(err, errFull) {
		return begun, fmt.Errorf("the filter of existing keys: %w", err)
	}
	return begun, b.Commit()
}

// errFull ends a query once it has given more keys than stated.
var errFull = errors.New("more keys than stated")

func (r *Rebuilder) running(yes bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats.Running = yes
}

func (r *Rebuilder) note(err error, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stats.Err = err; err != nil {
		r.stats.Failures++
		return
	}
	r.stats.Took = took
}

// random is a part of a time.
func random(most time.Duration) time.Duration {
	return time.Duration(rand.Float64() * float64(most))
}
