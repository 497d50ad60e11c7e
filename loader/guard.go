package loader

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
	"golang.org/x/time/rate"
)

// GuardConfig has the bounds of one namespace's origin. Zero means the default
// that stands beside the field; negative values are refused.
type GuardConfig struct {
	Concurrency int           // calls at once; 64
	Queue       int           // that wait for a place; 1,024
	QueueTime   time.Duration // the longest wait for a place and for the rate; 1 s
	Rate        float64       // calls per second, retries included; no limit
	Burst       int           // calls at once after a rest, where Rate is given; a tenth of Rate, at least 1
	Timeout     time.Duration // of one call; 5 s

	Failures int           // in a row that open the breaker; 5
	Open     time.Duration // that the breaker stays open; 5 s
	Probes   int           // calls at once while it is half open, and successes that close it; 1

	Retries     int           // after the first call; none
	BackoffBase time.Duration // 50 ms
	BackoffMost time.Duration // 2 s
	RetryShare  float64       // retries per request that has come, in the long run; 0.1
}

// withDefaults returns a validated copy.
func (c GuardConfig) withDefaults() (GuardConfig, error) {
	for _, f := range []struct {
		name  string
		value float64
	}{
		{"concurrency", float64(c.Concurrency)}, {"queue", float64(c.Queue)}, {"queue time", float64(c.QueueTime)},
		{"rate", c.Rate}, {"burst", float64(c.Burst)}, {"timeout", float64(c.Timeout)},
		{"failures", float64(c.Failures)}, {"open", float64(c.Open)}, {"probes", float64(c.Probes)},
		{"retries", float64(c.Retries)}, {"backoff base", float64(c.BackoffBase)}, {"backoff most", float64(c.BackoffMost)},
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
	c.Concurrency = orInt(c.Concurrency, 64)
	c.Queue = orInt(c.Queue, 1024)
	or(&c.QueueTime, time.Second)
	c.Burst = orInt(c.Burst, max(1, int(c.Rate/10)))
	or(&c.Timeout, 5*time.Second)
	c.Failures = orInt(c.Failures, 5)
	or(&c.Open, 5*time.Second)
	c.Probes = orInt(c.Probes, 1)
	or(&c.BackoffBase, 50*time.Millisecond)
	or(&c.BackoffMost, 2*time.Second)
	if c.RetryShare == 0 {
		c.RetryShare = 0.1
	}
	return c, nil
}

// retryReserve is what a Guard's retry budget holds at most.
const retryReserve = 10

// GuardStats counts since the start, but for the first two and Breaker.
type GuardStats struct {
	Running, Waiting int64
	Breaker          string // closed, open or half-open
	Requests         uint64
	Calls            uint64 // of the origin, retries included
	Failed           uint64 // calls that got no answer
	Retries          uint64
	NoBudget         uint64 // retries not made for want of budget
	ShedQueue        uint64 // ErrBusy: the queue was full, or the wait too long
	ShedRate         uint64 // ErrBusy: the rate left no room within the wait
	ShedBreaker      uint64 // ErrBusy: the breaker was open
	CallTime         time.Duration
}

// Guard stands before one namespace's origin: a place among few, a share of the
// rate, a breaker, and retries within a budget. One Guard a namespace is the
// bulkhead: a slow origin fills its own places and no others. It has no
// goroutine.
//
// Load is for loads, whose contexts are their own (Loads): a deadline that
// passes is held against the origin, a cancelled context is not.
//
// A call that ignores its context keeps its place until it returns, since the
// origin is still at work on it.
type Guard struct {
	source  Source
	cfg     GuardConfig
	queue   *Queue
	rate    *rate.Limiter
	breaker *gobreaker.TwoStepCircuitBreaker[struct{}]
	budget  *Budget

	requests, calls, failed, retries, noBudget atomic.Uint64
	shedQueue, shedRate, shedBreaker           atomic.Uint64
	callTime                                   atomic.Int64
}

// NewGuard puts a guard before source. It starts nothing.
func NewGuard(source Source, cfg GuardConfig) (*Guard, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	limit := rate.Inf
	if cfg.Rate > 0 {
		limit = rate.Limit(cfg.Rate)
	}
	return &Guard{
		source: source,
		cfg:    cfg,
		queue:  NewQueue(cfg.Concurrency, cfg.Queue, cfg.QueueTime),
		rate:   rate.NewLimiter(limit, cfg.Burst),
		breaker: gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
			MaxRequests: uint32(min(cfg.Probes, math.MaxUint32)),
			Timeout:     cfg.Open,
			ReadyToTrip: func(c gobreaker.Counts) bool {
				return c.ConsecutiveFailures >= uint32(min(cfg.Failures, math.MaxUint32))
			},
			IsSuccessful: Answered,
			// Who asked has gone: that says nothing of the origin.
			IsExcluded: func(err error) bool { return errors.Is(err, errGone) },
		}),
		budget: NewBudget(cfg.RetryShare, retryReserve),
	}, nil
}

// errGone marks, for the breaker, a call whose caller had gone.
var errGone = errors.New("the caller has gone")

// Load asks the source within the bounds. What is shed returns an error that
// wraps ErrBusy, and has not reached the origin.
func (g *Guard) Load(ctx context.Context, key []byte) (Value, error) {
	g.requests.Add(1)
	g.budget.Request()
	for retry := 0; ; retry++ {
		v, err := g.once(ctx, key)
		if Answered(err) || errors.Is(err, ErrBusy) || ctx.Err() != nil || retry == g.cfg.Retries {
			return v, err
		}
		if !g.budget.Retry() {
			g.noBudget.Add(1)
			return v, err
		}
		g.retries.Add(1)
		timer := time.NewTimer(Backoff(retry, g.cfg.BackoffBase, g.cfg.BackoffMost, rand.Float64()))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return v, err
		}
	}
}

// once makes one call. The place is given back while a retry waits.
func (g *Guard) once(ctx context.Context, key []byte) (Value, error) {
	if g.breaker.State() == gobreaker.StateOpen {
		return Value{}, g.shed(&g.shedBreaker, "its breaker is open after %d failures", g.cfg.Failures)
	}
	leave, err := g.queue.Enter(ctx)
	if err != nil {
		if errors.Is(err, ErrBusy) {
			g.shedQueue.Add(1)
		}
		return Value{}, err
	}
	defer leave()
	if err := g.takeRate(ctx); err != nil {
		return Value{}, err
	}
	// After the waits, so that few know the breaker's state of long ago.
	done, err := g.breaker.Allow()
	if err != nil {
		return Value{}, g.shed(&g.shedBreaker, "its breaker lets %d calls try", g.cfg.Probes)
	}
	outcome := errors.New("its source panicked")
	defer func() { done(outcome) }()

	g.calls.Add(1)
	began := time.Now()
	callCtx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	v, err := g.source.Load(callCtx, key)
	g.callTime.Add(int64(time.Since(began)))
	outcome = err
	switch {
	case Answered(err):
	case errors.Is(ctx.Err(), context.Canceled):
		outcome = errGone
	default:
		g.failed.Add(1)
	}
	return v, err
}

// takeRate waits for the rate, with the place kept: so not more wait here than
// there are places.
func (g *Guard) takeRate(ctx context.Context) error {
	waitCtx, cancel := context.WithTimeout(ctx, g.cfg.QueueTime)
	defer cancel()
	if err := g.rate.Wait(waitCtx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return g.shed(&g.shedRate, "its rate of %v/s leaves no room within %v", g.cfg.Rate, g.cfg.QueueTime)
	}
	return nil
}

func (g *Guard) shed(count *atomic.Uint64, format string, args ...any) error {
	count.Add(1)
	return fmt.Errorf("%w: "+format, append([]any{ErrBusy}, args...)...)
}

// Stats counts.
func (g *Guard) Stats() GuardStats {
	s := GuardStats{
		Breaker:  g.breaker.State().String(),
		Requests: g.requests.Load(), Calls: g.calls.Load(), Failed: g.failed.Load(),
		Retries: g.retries.Load(), NoBudget: g.noBudget.Load(),
		ShedQueue: g.shedQueue.Load(), ShedRate: g.shedRate.Load(), ShedBreaker: g.shedBreaker.Load(),
		CallTime: time.Duration(g.callTime.Load()),
	}
	s.Running, s.Waiting = g.queue.Len()
	return s
}
