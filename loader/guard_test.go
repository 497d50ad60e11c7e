package loader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func newGuard(t *testing.T, cfg GuardConfig, f SourceFunc) *Guard {
	t.Helper()
	g, err := NewGuard(f, cfg)
	testenv.Must(t, err)
	return g
}

var errDown = errors.New("connection refused")

func down(context.Context, []byte) (Value, error) { return Value{}, errDown }

func TestBackoff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		retry  int
		random float64
		want   time.Duration
	}{
		{"nothing", 0, 0, 0},
		{"first", 0, 1, 50 * time.Millisecond},
		{"doubled", 1, 1, 100 * time.Millisecond},
		{"half of the fourth", 3, 0.5, 200 * time.Millisecond},
		{"no more than the most", 20, 1, 2 * time.Second},
		{"nor overflowing", 5000, 1, 2 * time.Second},
	} {
		if got := Backoff(tc.retry, 50*time.Millisecond, 2*time.Second, tc.random); got != tc.want {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func TestRetries(t *testing.T) {
	for _, tc := range []struct {
		name  string
		fails int
		err   error
		want  error
		calls int64
	}{
		{"comes back", 2, errDown, nil, 3},
		{"stays away", 9, errDown, errDown, 4},
		{"absent", 9, ErrAbsent, ErrAbsent, 1},
		{"refused", 9, ErrPermanent, ErrPermanent, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				var calls atomic.Int64
				g := newGuard(t, GuardConfig{Retries: 3, Breaker: Breaker{Failures: 100}}, func(context.Context, []byte) (Value, error) {
					if calls.Add(1) <= int64(tc.fails) {
						return Value{}, tc.err
					}
					return Value{}, nil
				})
				_, err := g.Load(t.Context(), nil)
				if !errors.Is(err, tc.want) || calls.Load() != tc.calls {
					t.Errorf("%v after %d calls, want %v after %d", err, calls.Load(), tc.want, tc.calls)
				}
			})
		})
	}
}

// A failing origin gets one tenth more calls than requests, not four times as many.
func TestRetryBudget(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		g := newGuard(t, GuardConfig{Retries: 3, Breaker: Breaker{Failures: 1 << 20}}, down)
		for range 1000 {
			if _, err := g.Load(t.Context(), nil); !errors.Is(err, errDown) {
				t.Fatal(err)
			}
		}
		calls, retries := g.Counts.Calls.Load(), g.Counts.Retries.Load()
		if retries < 100 || retries > 1000/10+retryReserve || calls != 1000+retries {
			t.Errorf("%d calls, %d retries", calls, retries)
		}
	})
}

func TestConcurrencyAndQueue(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		g := newGuard(t, GuardConfig{Concurrency: 3, Queue: 4, QueueTime: time.Second}, func(context.Context, []byte) (Value, error) {
			if n := now.Add(1); n > most.Load() {
				most.Store(n)
			}
			defer now.Add(-1)
			time.Sleep(700 * time.Millisecond)
			return Value{}, nil
		})
		// 3 calls run, 4 wait, and 3 are refused. Of the 4 that wait, 3 get a place
		// after 0.7 s and 1 waits too long.
		var ok, busy atomic.Int64
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				switch _, err := g.Load(t.Context(), nil); {
				case err == nil:
					ok.Add(1)
				case errors.Is(err, ErrBusy):
					busy.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		running, waiting := g.queue.Len()
		if most.Load() != 3 || ok.Load() != 6 || busy.Load() != 4 || g.Counts.Shed.Load() != 4 || running != 0 || waiting != 0 {
			t.Errorf("at once %d, ok %d, busy %d, shed %d, running %d, waiting %d",
				most.Load(), ok.Load(), busy.Load(), g.Counts.Shed.Load(), running, waiting)
		}
	})
}

func TestQueueLeftAndFull(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		q := NewQueue(1, 1, time.Hour)
		leave, err := q.Enter(t.Context())
		testenv.Must(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.Enter(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		waits := make(chan error, 1)
		go func() {
			leave, err := q.Enter(t.Context())
			if err == nil {
				leave()
			}
			waits <- err
		}()
		synctest.Wait()
		began := time.Now()
		if _, err := q.Enter(t.Context()); !errors.Is(err, ErrBusy) || time.Since(began) != 0 {
			t.Errorf("one too many got %v after %v", err, time.Since(began))
		}
		leave()
		testenv.Should(t, <-waits)
		if running, waiting := q.Len(); running != 0 || waiting != 0 {
			t.Errorf("%d in, %d waiting", running, waiting)
		}
	})
}

func TestBulkhead(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		slow := newGuard(t, GuardConfig{Concurrency: 1}, func(ctx context.Context, _ []byte) (Value, error) {
			<-ctx.Done()
			return Value{}, ctx.Err()
		})
		fast := newGuard(t, GuardConfig{Concurrency: 1}, func(context.Context, []byte) (Value, error) { return Value{}, nil })
		var wg sync.WaitGroup
		wg.Go(func() { _, _ = slow.Load(t.Context(), nil) })
		synctest.Wait()
		began := time.Now()
		if _, err := fast.Load(t.Context(), nil); err != nil || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wg.Wait()
	})
}

func TestRate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		g := newGuard(t, GuardConfig{Rate: 100, Burst: 5, QueueTime: 100 * time.Millisecond},
			func(context.Context, []byte) (Value, error) { return Value{}, nil })
		end := time.Now().Add(10 * time.Second)
		for time.Now().Before(end) {
			for range 3 {
				go g.Load(t.Context(), nil)
			}
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		if n := g.Counts.Calls.Load(); n < 990 || n > 100*10+5 || g.Counts.Shed.Load() == 0 {
			t.Errorf("%d calls, want 1,000, and %d shed", n, g.Counts.Shed.Load())
		}
		time.Sleep(time.Second) // the calls that still wait
	})
}

// TestRateInTurns: a process that asks far more than the rate leaves another one, of its tenant or of another one,
// its part of it.
func TestRateInTurns(t *testing.T) {
	for _, tenant := range []string{"uid 1", "uid 2"} {
		bubble.Test(t, func(t *testing.T) {
			g := newGuard(t, GuardConfig{Rate: 20}, func(context.Context, []byte) (Value, error) { return Value{}, nil })
			hog, honest := as(t, "uid 1", "pid 1"), as(t, tenant, "pid 2")
			end := time.Now().Add(20 * time.Second)
			var over sync.WaitGroup
			for range 200 {
				over.Go(func() {
					for time.Now().Before(end) {
						if _, err := g.Load(hog, nil); err != nil {
							time.Sleep(50 * time.Millisecond)
						}
					}
				})
			}
			time.Sleep(time.Second)
			refused, began := 0, time.Now()
			for range 100 { // five a second, as much as it would alone
				if _, err := g.Load(honest, nil); err != nil {
					refused++
				}
				time.Sleep(50 * time.Millisecond)
			}
			if took := time.Since(began); refused > 0 || took > 20*time.Second {
				t.Errorf("of %s: %d of 100 are refused, in %v", tenant, refused, took)
			}
			over.Wait()
			if n := g.Counts.Calls.Load(); n < 380 {
				t.Errorf("%d calls, want 400", n)
			}
		})
	}
}

func TestBreaker(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var up atomic.Bool
		g := newGuard(t, GuardConfig{Breaker: Breaker{Failures: 3, Open: 5 * time.Second}}, func(ctx context.Context, key []byte) (Value, error) {
			time.Sleep(time.Second)
			if !up.Load() {
				return down(ctx, key)
			}
			return Value{}, ErrAbsent // an answer
		})
		load := func(want error) {
			t.Helper()
			if _, err := g.Load(t.Context(), nil); !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
		}
		for range 3 {
			load(errDown)
		}
		load(ErrBusy)
		time.Sleep(5*time.Second + 1)
		load(errDown) // the probe
		load(ErrBusy)
		up.Store(true)
		time.Sleep(5*time.Second + 1)
		var wg sync.WaitGroup
		wg.Go(func() { load(ErrAbsent) })
		synctest.Wait()
		load(ErrBusy) // while the probe runs
		wg.Wait()
		load(ErrAbsent)
		if calls, shed := g.Counts.Calls.Load(), g.Counts.Shed.Load(); g.Breaker() != "closed" || calls != 6 || shed != 3 {
			t.Errorf("the breaker is %s, %d calls, %d shed", g.Breaker(), calls, shed)
		}
	})
}

func TestGoneCallersDoNotOpenTheBreaker(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		g := newGuard(t, GuardConfig{Breaker: Breaker{Failures: 1}}, func(ctx context.Context, _ []byte) (Value, error) {
			<-ctx.Done()
			return Value{}, ctx.Err()
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := g.Load(ctx, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		if g.Breaker() != "closed" {
			t.Errorf("the breaker is %s", g.Breaker())
		}
		if _, err := g.Load(t.Context(), nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a hanging origin: %v", err)
		}
		if g.Breaker() != "open" {
			t.Errorf("the breaker is %s", g.Breaker())
		}
	})
}

// The origin fails for 60 s and then recovers. The calls never exceed the rate.
func TestRecoveryWithoutBurst(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var up atomic.Bool
		var second [200]int
		var mu sync.Mutex
		start := time.Now()
		g := newGuard(t, GuardConfig{Rate: 50, Burst: 5, Retries: 2}, func(ctx context.Context, key []byte) (Value, error) {
			mu.Lock()
			second[time.Since(start)/time.Second]++
			mu.Unlock()
			if !up.Load() {
				return down(ctx, key)
			}
			return Value{}, nil
		})
		for range 90 * 100 {
			if time.Since(start) > time.Minute {
				up.Store(true)
			}
			go g.Load(t.Context(), nil)
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(10 * time.Second)
		total := 0
		for at, n := range second {
			total += n
			if n > 55 {
				t.Errorf("%d calls in second %d", n, at)
			}
		}
		if g.Breaker() != "closed" || total < 20*50 {
			t.Errorf("%d calls, the breaker is %s", total, g.Breaker())
		}
	})
}

func TestGuardConfig(t *testing.T) {
	for _, cfg := range []GuardConfig{{Concurrency: -1}, {Rate: -1}, {Breaker: Breaker{Open: -time.Second}}, {RetryShare: -0.1}} {
		if _, err := NewGuard(SourceFunc(down), cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

// TestBreakerStates checks that the breaker is half-open as soon as its time is over, with
// no call since, that as many successes as there are probes close it, and that a failure
// opens it again.
func TestBreakerStates(t *testing.T) {
	for _, probes := range []int{1, 3} {
		bubble.Test(t, func(t *testing.T) {
			var err error
			g := newGuard(t, GuardConfig{Breaker: Breaker{Failures: 2, Open: time.Second, Probes: probes}},
				func(context.Context, []byte) (Value, error) { return Value{}, err })
			load := func(bad error) {
				err = bad
				_, _ = g.Load(t.Context(), nil)
			}
			is := func(when, breaker string, opened int64) {
				t.Helper()
				if n := g.Counts.Opened.Load(); g.Breaker() != breaker || n != opened {
					t.Errorf("%d probes, %s: %s, opened %d times, want %s, %d", probes, when, g.Breaker(), n, breaker, opened)
				}
			}
			load(errDown)
			is("after a failure", "closed", 0)
			load(errDown)
			is("after two", "open", 1)
			time.Sleep(time.Second)
			is("at the end of its time", "open", 1)
			time.Sleep(time.Nanosecond)
			is("after its time", "half-open", 1)
			load(errDown)
			is("after a failed probe", "open", 2)
			time.Sleep(time.Second + 1)
			for i := range probes {
				is("before the successes", "half-open", 2)
				if load(nil); i < probes-1 {
					is("between the successes", "half-open", 2)
				}
			}
			is("after the successes", "closed", 2)
		})
	}
}
