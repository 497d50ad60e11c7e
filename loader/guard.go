package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// GuardConfig has the limits of one host for the calls of one namespace's origin. Zero means the
// default.
type GuardConfig struct {
	// Concurrency is the number of calls at once. Form: calls. Default: 64. Bounds: up to
	// 65536.
	Concurrency int `yaml:"concurrency"`
	// Queue is the number of loads that wait for a place. Form: loads. Default: 1024.
	// Bounds: up to 1048576.
	Queue int `yaml:"queue"`
	// QueueTime is the longest wait for a place, and for the rate. Default: 1s. Bounds: up
	// to 30s.
	QueueTime time.Duration `yaml:"queue_time"`
	// Rate is the number of calls per second, retries included. Form: calls per second.
	// Default: no limit. Bounds: up to 1e9.
	Rate float64 `yaml:"rate"`
	// Burst is the number of calls at once after a rest. Form: calls. Default: a tenth of
	// Rate, at least 1. Bounds: up to 1048576.
	Burst int `yaml:"burst"`
	// Timeout is the time for one call. Default: 5s; redis 1s, memcached 500ms. Bounds: up
	// to 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Breaker stops the calls to an origin that fails.
	Breaker Breaker `yaml:"breaker"`
	// Retries is the number of retries after a failed call. Form: calls. Default: none.
	// Bounds: up to 10.
	Retries int `yaml:"retries"`
	// RetryShare is the number of retries per load, in the long run. Form: share. Default:
	// 0.1. Bounds: up to 1.
	RetryShare float64 `yaml:"retry_share"`

	BackoffBase time.Duration `yaml:"-"` // 50 ms
	BackoffMost time.Duration `yaml:"-"` // 2 s
}

// Breaker stops the calls to an origin that fails. Zero means the default.
type Breaker struct {
	// Failures is the number of failures in a row that open the breaker. Form: calls.
	// Default: 5. Bounds: up to 1048576.
	Failures int `yaml:"failures"`
	// Open is how long the breaker stays open. Default: 5s. Bounds: up to 10m.
	Open time.Duration `yaml:"open"`
	// Probes is the number of calls at once while the breaker is half open, and of the
	// successes that close it. Form: calls. Default: 1. Bounds: up to 1024.
	Probes int `yaml:"probes"`
}

// maxCallTime is the maximum of the settings for one call to an origin. A load with its
// waits and retries ends after that time (flight.LoadsConfig.Timeout).
const maxCallTime = 30 * time.Second

// maxBurst is the maximum of Burst, and bounds its default.
const maxBurst = 1 << 20

// WithDefaults returns a copy with the defaults filled in. The error joins what is wrong.
func (cfg GuardConfig) WithDefaults() (GuardConfig, error) {
	err := errors.Join(
		settings.Bounded("limits.concurrency", cfg.Concurrency, 0, 1<<16),
		settings.Bounded("limits.queue", cfg.Queue, 0, 1<<20),
		settings.Bounded("limits.queue_time", cfg.QueueTime, 0, maxCallTime),
		settings.Bounded("limits.rate", cfg.Rate, 0, 1e9),
		settings.Bounded("limits.burst", cfg.Burst, 0, maxBurst),
		settings.Bounded("limits.timeout", cfg.Timeout, 0, maxCallTime),
		settings.Bounded("limits.breaker.failures", cfg.Breaker.Failures, 0, 1<<20),
		settings.Bounded("limits.breaker.open", cfg.Breaker.Open, 0, 10*time.Minute),
		settings.Bounded("limits.breaker.probes", cfg.Breaker.Probes, 0, 1<<10),
		settings.Bounded("limits.retries", cfg.Retries, 0, 10),
		settings.Bounded("limits.retry_share", cfg.RetryShare, 0, 1),
	)
	cfg.Concurrency = cmp.Or(cfg.Concurrency, 64)
	cfg.Queue = cmp.Or(cfg.Queue, 1024)
	cfg.QueueTime = cmp.Or(cfg.QueueTime, time.Second)
	cfg.Burst = cmp.Or(cfg.Burst, int(min(max(1, cfg.Rate/10), maxBurst)))
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	cfg.Breaker.Failures = cmp.Or(cfg.Breaker.Failures, 5)
	cfg.Breaker.Open = cmp.Or(cfg.Breaker.Open, 5*time.Second)
	cfg.Breaker.Probes = cmp.Or(cfg.Breaker.Probes, 1)
	cfg.RetryShare = cmp.Or(cfg.RetryShare, 0.1)
	cfg.BackoffBase = cmp.Or(cfg.BackoffBase, 50*time.Millisecond)
	cfg.BackoffMost = cmp.Or(cfg.BackoffMost, 2*time.Second)
	return cfg, err
}

// retryReserve is the maximum of a Guard's retry budget.
const retryReserve = 10

// GuardCounts counts since the start.
type GuardCounts struct {
	Calls   atomic.Int64 // of the origin, retries included
	Retries atomic.Int64
	Shed    atomic.Int64 // ErrBusy: no place, no call within the rate, or the breaker was open
	Opened  atomic.Int64 // times that the breaker opened
}

// Guard limits the calls of one namespace's origin: by a number of places, a rate, a
// breaker, and a budget of retries. Each namespace has its own Guard, which is the
// bulkhead: a slow origin fills only its own places. Guard starts no goroutine.
//
// Load expects a context that belongs to the load, not to a caller. The breaker counts a
// passed deadline as a failure of the origin, but not a cancelled context.
//
// A call that ignores its context keeps its place until it returns, because the origin
// still works on it.
type Guard struct {
	Config GuardConfig // with the defaults
	source Source
	queue  *Queue
	rate   *rate.Limiter
	turns  *Queue // for the rate
	budget *Budget

	// Counts may be those of another Guard, whose place this one takes. They are set before the first Load.
	Counts *GuardCounts
}

// NewGuard returns a Guard before source. It starts nothing.
func NewGuard(source Source, cfg GuardConfig) (*Guard, error) {
	cfg, err := cfg.WithDefaults()
	if err != nil {
		return nil, err
	}
	limit := rate.Inf
	if cfg.Rate > 0 {
		limit = rate.Limit(cfg.Rate)
	}
	g := &Guard{
		source: source,
		Config: cfg,
		queue:  NewQueue(cfg.Concurrency, cfg.Queue, cfg.QueueTime),
		rate:   rate.NewLimiter(limit, cfg.Burst),
		turns:  NewQueue(1, cfg.Concurrency, cfg.QueueTime),
		budget: NewBudget(cfg.RetryShare, retryReserve),
		Counts: &GuardCounts{},
	}
	return g, nil
}

// Load asks the source within the limits. If it sheds the request, it returns an error
// that wraps ErrBusy, and that call has not reached the origin. It may be called
// concurrently.
func (g *Guard) Load(ctx context.Context, key []byte) (Value, error) {
	g.budget.Request()
	for retry := 0; ; retry++ {
		v, err := g.once(ctx, key)
		if Answered(err) || errors.Is(err, ErrBusy) || ctx.Err() != nil || retry == g.Config.Retries ||
			!g.budget.Retry() {
			return v, err
		}
		g.Counts.Retries.Add(1)
		timer := time.NewTimer(Backoff(retry, g.Config.BackoffBase, g.Config.BackoffMost, rand.Float64()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return v, err
		}
	}
}

// once makes one call. The place is free again while a retry waits.
func (g *Guard) once(ctx context.Context, key []byte) (Value, error) {
	a, err := g.ask(ctx)
	if err != nil {
		return Value{}, err
	}
	waited := inspect.BeginWait(ctx, inspect.Limits, "")
	leave, err := g.queue.Enter(ctx)
	waited()
	if err != nil {
		if errors.Is(err, ErrBusy) {
			g.Counts.Shed.Add(1)
		}
		return Value{}, err
	}
	defer leave()
	waited = inspect.BeginWait(ctx, inspect.Limits, "")
	err = g.takeRate(ctx)
	if waited(); err != nil {
		return Value{}, err
	}
	// It comes after the waits, so that few calls act on an old state of the breaker.
	done, err := g.allow(a)
	if err != nil {
		return Value{}, err
	}
	// The breaker holds the call as under way until done. If the source panics, it hears of this failure.
	outcome := errors.New("its source panicked")
	defer func() { done(outcome) }()

	g.Counts.Calls.Add(1)
	callCtx, cancel := context.WithTimeout(ctx, g.Config.Timeout)
	defer cancel()
	asked := inspect.BeginWait(ctx, inspect.Origin, "")
	v, err := g.source.Load(callCtx, key)
	asked()
	outcome = err
	if !Answered(err) && (errors.Is(ctx.Err(), context.Canceled) || errors.Is(err, ErrBusy)) {
		outcome = errGone // or there is no memory, or the source has limits of its own
	}
	return v, err
}

// ask returns the caller, or an error if a breaker is open for it.
func (g *Guard) ask(ctx context.Context) (*asker, error) {
	now := time.Now()
	g.queue.mu.Lock()
	defer g.queue.mu.Unlock()
	a := g.queue.askers.askNow(ctx, now)
	return a, g.checkOpen(a, now)
}

// takeRate waits for the rate. One caller at a time does so, and the others for their turns, as for a place: no tenant
// or process uses up the rate. The caller keeps its place, so the number of places limits how many calls wait here.
func (g *Guard) takeRate(ctx context.Context) error {
	if g.rate.Limit() == rate.Inf {
		return nil
	}
	waitCtx, cancel := context.WithTimeout(ctx, g.Config.QueueTime)
	defer cancel()
	leave, err := g.turns.Enter(waitCtx)
	if err == nil {
		err = g.rate.Wait(waitCtx)
		leave()
	}
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return g.shed("its rate of %v/s leaves no room within %v", g.Config.Rate, g.Config.QueueTime)
	}
	return nil
}

func (g *Guard) shed(format string, args ...any) error {
	g.Counts.Shed.Add(1)
	return fmt.Errorf("%w: "+format, append([]any{ErrBusy}, args...)...)
}

// Spare reports whether a call of low priority keeps no other one waiting: the breaker is closed, no
// call waits, and half of the places are free.
func (g *Guard) Spare() bool {
	admitted, line := g.queue.Len()
	return g.Breaker() == "closed" && line == 0 && 2*admitted < int64(g.Config.Concurrency)
}
