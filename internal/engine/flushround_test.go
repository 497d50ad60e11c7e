package engine

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestFlushRounds: of many flushes of one name, all that come while one is under way are one more. None takes part in a
// flush that had begun before it came, and other names do not wait.
func TestFlushRounds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var rounds flushRounds
		var wg sync.WaitGroup
		begun := map[string]int{}
		var mu sync.Mutex
		flush := func(name string) {
			mu.Lock()
			before := begun[name]
			mu.Unlock()
			v, bad := rounds.do(t.Context(), name, func(context.Context) (kv.Version, *wire.Error) {
				mu.Lock()
				begun[name]++
				n := begun[name]
				mu.Unlock()
				time.Sleep(time.Second)
				return kv.Version(n), nil
			})
			if bad != nil || int(v) <= before {
				t.Errorf("%s: flush %d, and %d had begun; %v", name, v, before, bad)
			}
		}
		start := time.Now()
		for range 100 {
			wg.Go(func() { flush("a") })
		}
		wg.Go(func() { flush("b") })
		synctest.Wait()
		time.Sleep(500 * time.Millisecond)
		for range 100 {
			wg.Go(func() { flush("a") })
		}
		wg.Wait()
		if took := time.Since(start); begun["a"] > 2 || begun["b"] != 1 || took > 2*time.Second {
			t.Errorf("%v flushes in %v", begun, took)
		}
		if len(rounds.names) != 0 {
			t.Errorf("%d rounds are left", len(rounds.names))
		}
	})
}

// TestFlushRoundOutOfTime: if the time of the one that leads a round is over, the others flush without it.
func TestFlushRoundOutOfTime(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		var rounds flushRounds
		var wg sync.WaitGroup
		defer wg.Wait()
		do := func(patience time.Duration) *wire.Error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, bad := rounds.do(ctx, "a", func(context.Context) (kv.Version, *wire.Error) {
				time.Sleep(5 * time.Second)
				return 1, nil
			})
			return bad
		}
		wg.Go(func() {
			if bad := do(time.Minute); bad != nil {
				t.Errorf("the first: %v", bad)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if bad := do(time.Second); bad == nil || bad.Status != wire.Timeout {
				t.Errorf("one without time: %v", bad)
			}
		})
		synctest.Wait()
		if bad := do(time.Minute); bad != nil {
			t.Errorf("the next: %v", bad)
		}
	})
}
