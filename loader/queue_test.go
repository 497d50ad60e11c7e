package loader

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// offer makes callers enter a queue three times as often as it admits them, and notes how
// long they waited by the time at which they came.
type offer struct {
	q      *Queue
	takes  time.Duration
	places int
	ctx    context.Context

	mu     sync.Mutex
	wg     sync.WaitGroup
	in     int
	busy   int
	waited []wait
}

type wait struct{ at, took time.Duration }

func (o *offer) run(t *testing.T, lasts time.Duration) {
	start := time.Now()
	for time.Since(start) < lasts {
		o.wg.Go(func() { o.enter(t, start) })
		time.Sleep(o.takes / time.Duration(3*o.places))
	}
	o.wg.Wait()
}

func (o *offer) enter(t *testing.T, start time.Time) {
	came := time.Now()
	leave, err := o.q.Enter(o.ctx)
	took := time.Since(came)
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case err == nil:
		o.in++
		o.waited = append(o.waited, wait{came.Sub(start), took})
		o.wg.Go(func() {
			time.Sleep(o.takes)
			leave()
		})
	case !errors.Is(err, ErrBusy):
		t.Error(err)
	default:
		if o.busy++; took > 0 {
			t.Errorf("a refusal takes %v, want none to wait", took)
		}
	}
}

// TestQueueInOverload checks that a queue that does not get empty becomes short, that all
// places are in use all the same, and that refusals come at once. After the overload a
// burst waits as before.
func TestQueueInOverload(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	for _, takes := range []time.Duration{time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond} {
		t.Run(takes.String(), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				const places = 16
				lasts := 3 * time.Second
				if testenv.Long() {
					lasts = 10 * time.Second
				}
				o := &offer{q: NewQueue(places, 1024, time.Second), takes: takes, places: places, ctx: t.Context()}
				o.run(t, lasts)
				if all := int(lasts/takes) * places; o.in < all || o.busy < all {
					t.Errorf("%d in, %d refused, want at least %d of each", o.in, o.busy, all)
				}
				for _, w := range o.waited { // in the first second the queue that came before is worked off
					if most := 2*takes + shortWait; w.at > time.Second && w.took > most {
						t.Fatalf("a caller that came after %v waited %v, want at most %v", w.at, w.took, most)
					}
				}
				var burst sync.WaitGroup
				for range 10 * places {
					burst.Go(func() {
						leave, err := o.q.Enter(t.Context())
						if err != nil {
							t.Errorf("a burst after the overload: %v", err)
							return
						}
						time.Sleep(takes)
						leave()
					})
				}
				burst.Wait()
			})
		})
	}
}

// TestQueueOfOneRequest checks that a request with many keys has all of them admitted,
// although it keeps the queue standing: it brings the next key when one is done.
func TestQueueOfOneRequest(t *testing.T) {
	for places := 1; places <= together; places++ {
		bubble.Test(t, func(t *testing.T) {
			q := NewQueue(places, 1024, time.Second)
			var keys atomic.Int64
			var request sync.WaitGroup
			for range together {
				request.Go(func() {
					for keys.Add(1) <= 200 {
						leave, err := q.Enter(t.Context())
						if err != nil {
							t.Errorf("%d places: %v", places, err)
							return
						}
						time.Sleep(20 * time.Millisecond) // the origin
						leave()
					}
				})
			}
			request.Wait()
		})
	}
}
