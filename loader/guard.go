package loader

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
)

// GuardConfig has the limits for one namespace's origin. Zero means the default, which
// is given beside each field. Negative values are refused.
type GuardConfig struct {
	Concurrency int           // concurrent calls; 64
	Queue       int           // calls that wait for a place; 1,024
	QueueTime   time.Duration // maximum wait for a place, and for the rate; 1 s
	Rate        float64       // calls per second, retries included; no limit
	// Calls at once after a pause, if Rate is given; a tenth of Rate, at least 1 and at most
	// what a configuration may give.
	Burst   int
	Timeout time.Duration // of one call; 5 s

	Failures int           // consecutive failures that open the breaker; 5
	Open     time.Duration // time that the breaker stays open; 5 s
	// Concurrent calls while it is half open, and successes that close it; 1.
	Probes int

	Retries     int           // after the first call; none
	BackoffBase time.Duration // 50 ms
	BackoffMost time.Duration // 2 s
	RetryShare  float64       // retries per request, in the long run; 0.1
}

// mostBurst bounds the default of Burst.
const mostBurst = 1 << 20

// WithDefaults returns a validated copy with the defaults filled in.
func (c GuardConfig) WithDefaults() (GuardConfig, error) {
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"concurrency", float64(c.Concurrency)}, {"queue", float64(c.Queue)}, {"queue time", float64(c.QueueTime)},
		{"rate", c.Rate}, {"burst", float64(c.Burst)}, {"timeout", float64(c.Timeout)},
		{"failures", float64(c.Failures)}, {"open", float64(c.Open)}, {"probes", float64(c.Probes)},
		{"retries", float64(c.Retries)}, {"backoff base", float64(c.BackoffBase)},
		{"backoff most", float64(c.BackoffMost)},
		{"retry share", c.RetryShare},
	} {
		if !(f.value >= 0) || math.IsInf(f.value, 0) {
			return c, fmt.Errorf("guard: %s %v: give zero for the default, or more", f.name, f.value)
		}
	}
	or := func(d *time.Duration, instead time.Duration) {
		if *d == 0 {
			*d = instead
		}
	}
	c.Concurrency = cmp.Or(c.Concurrency, 64)
	c.Queue = cmp.Or(c.Queue, 1024)
	or(&c.QueueTime, time.Second)
	c.Burst = cmp.Or(c.Burst, int(min(max(1, c.Rate/10), mostBurst)))
	or(&c.Timeout, 5*time.Second)
	c.Failures = cmp.Or(c.Failures, 5)
	or(&c.Open, 5*time.Second)
	c.Probes = cmp.Or(c.Probes, 1)
	or(&c.BackoffBase, 50*time.Millisecond)
	or(&c.BackoffMost, 2*time.Second)
	if c.RetryShare == 0 {
		c.RetryShare = 0.1
	}
	return c, nil
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
	Config  GuardConfig // with the defaults
	source  Source
	queue   *Queue
	rate    *rate.Limiter
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	budget  *Budget

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
		budget: NewBudget(cfg.RetryShare, retryReserve),
		Counts: &GuardCounts{},
	}
	g.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: uint32(min(cfg.Probes, math.MaxUint32)),
		Timeout:     cfg.Open,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= uint32(min(cfg.Failures, math.MaxUint32))
		},
		IsSuccessful: Answered,
		// A load that was cancelled says nothing about the origin.
		IsExcluded: func(err error) bool { return errors.Is(err, errGone) },
		// The breaker holds its lock here.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				g.Counts.Opened.Add(1)
			}
		},
	})
	return g, nil
}

// errGone tells the breaker that the call was cancelled.
var errGone = errors.New("the caller has gone")

// Load asks the source within the limits. If it sheds the request, it returns an error
// that wraps ErrBusy, and that call has not reached the origin. It may be called
// concurrently.
func (g *Guard) Load(ctx context.Context, key []byte) (Value, error) {
	g.budget.Request()
	for retry := 0; ; retry++ {
		v, err := g.once(ctx, key)
		if Answered(err) || errors.Is(err, ErrBusy) || ctx.Err() != nil || retry == g.Config.Retries || !g.budget.Retry() {
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
	if g.breaker.State() == gobreaker.StateOpen {
		return Value{}, g.shed("its breaker is open after %d failures", g.Config.Failures)
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
	// Allow comes after the waits, so that few calls act on an old state of the breaker.
	done, err := g.breaker.Allow()
	if err != nil {
		return Value{}, g.shed("its breaker lets %d calls try", g.Config.Probes)
	}
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

// takeRate waits for the rate. The caller keeps its place, so the number of places
// limits how many calls wait here.
func (g *Guard) takeRate(ctx context.Context) error {
	waitCtx, cancel := context.WithTimeout(ctx, g.Config.QueueTime)
	defer cancel()
	if err := g.rate.Wait(waitCtx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return g.shed("its rate of %v/s leaves no room within %v", g.Config.Rate, g.Config.QueueTime)
	}
	return nil
}

func (g *Guard) shed(format string, args ...any) error {
	g.Counts.Shed.Add(1)
	return fmt.Errorf("%w: "+format, append([]any{ErrBusy}, args...)...)
}

// Breaker returns the state of the breaker now: "closed", "open" or "half-open". The
// breaker is half-open as soon as its open time is over, with or without a call.
func (g *Guard) Breaker() string { return g.breaker.State().String() }

// Spare reports whether a call of low priority keeps no other one waiting: the breaker is closed, no
// call waits, and half of the places are free.
func (g *Guard) Spare() bool {
	running, waiting := g.queue.Len()
	return g.breaker.State() == gobreaker.StateClosed && waiting == 0 && 2*running < int64(g.Config.Concurrency)
}
