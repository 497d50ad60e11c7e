package keyfilter

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// keyLister lists the keys there-0 to there-n.
type keyLister struct {
	n      int
	took   time.Duration
	during func() // called while the query runs

	mu      sync.Mutex
	err     error
	queries []time.Time
	given   int
}

func (l *keyLister) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// begun returns the times at which the queries began.
func (l *keyLister) begun() []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.queries)
}

func (l *keyLister) Keys(ctx context.Context, each func([]byte) error) error {
	l.mu.Lock()
	l.queries = append(l.queries, time.Now())
	err := l.err
	l.mu.Unlock()
	for i := range l.n {
		l.given++
		if err := each(fmt.Appendf(nil, "there-%d", i)); err != nil {
			return err
		}
	}
	if l.during != nil {
		l.during()
	}
	if !kv.Sleep(ctx, l.took) {
		return ctx.Err()
	}
	return err
}

// rebuilding runs a key filter in virtual time during a test. It has 1,000 keys
// and a maximum age of one hour.
func rebuilding(t *testing.T, l *keyLister, ready func(context.Context) error, test func(k *Filter, now func() time.Duration)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		start := time.Now()
		now := func() time.Duration { return time.Since(start) }
		k := newFilter(t, Settings{Keys: 1000, FalsePositives: 1e-6}, l, ready, now)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { // ends with ctx
			k.Run(ctx)
			close(ended)
		}()
		test(k, now)
		synctest.Wait()
		began, failures := time.Now(), k.Stats().Failures
		cancel()
		<-ended
		if s := k.Stats(); s.Failures != failures {
			t.Error("to be told to end was taken for a failure")
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("ended %v after it was told to", took)
		}
		if k.building.Load() != nil {
			t.Error("a build was left")
		}
	})
}

func atOnce(context.Context) error { return nil }

func TestRebuild(t *testing.T) {
	l := &keyLister{n: 100, took: time.Minute}
	rebuilding(t, l, atOnce, func(k *Filter, now func() time.Duration) {
		time.Sleep(30 * time.Second)
		if s := k.Stats(); !s.Building || k.Stats().InUse {
			t.Errorf("while it queries: %+v", s)
		}
		time.Sleep(41 * time.Second)
		for range 3600 * 10 {
			time.Sleep(time.Second)
			if s := k.Stats(); !s.InUse || s.AgeMS > 31*60_000 {
				t.Fatalf("after %v: %+v", now(), s)
			}
		}
		if !k.MayExist(hashOf("there", 99)) || k.MayExist(hashOf("absent", 1)) {
			t.Error("the filter has not the keys of the list")
		}
		if s := k.Stats(); s.Failures != 0 || s.Error != "" || s.TookMS != 60_000 {
			t.Errorf("%+v", s)
		}
	})
	waits := map[time.Duration]bool{}
	queries := l.begun()
	for i := range queries[1:] {
		wait := queries[i+1].Sub(queries[i])
		if waits[wait] = true; wait < 24*time.Minute || wait > 30*time.Minute {
			t.Errorf("query %d came %v after the one before", i+1, wait)
		}
	}
	if len(waits) < 10 {
		t.Errorf("%d queries, %d different waits", len(l.begun()), len(waits))
	}
}

func TestRebuildWake(t *testing.T) {
	l := &keyLister{n: 100}
	rebuilding(t, l, atOnce, func(k *Filter, now func() time.Duration) {
		time.Sleep(5 * time.Minute)
		absent := hashOf("absent", 1)
		k.distrust(absent.Partition())
		k.wake()
		if !k.MayExist(absent) {
			t.Error("denied though distrusted")
		}
		time.Sleep(10 * time.Second)
		if k.MayExist(absent) {
			t.Error("not built anew within the gap")
		}
		for range 1000 { // again and again
			k.wake()
			time.Sleep(100 * time.Millisecond)
		}
	})
	if n := len(l.begun()); n < 2+5 || n > 2+11 {
		t.Errorf("%d queries, where 100 s full of wakes may cause 10", n)
	}
	queries := l.begun()
	for i := range queries[1:] {
		if wait := queries[i+1].Sub(queries[i]); wait < 10*time.Second {
			t.Errorf("query %d came %v after the one before", i+1, wait)
		}
	}
}

// A wake is served by the next build that begins after it, and by no further build.
func TestRebuildWakeMeanwhile(t *testing.T) {
	var r atomic.Pointer[Filter]
	for _, tc := range []struct {
		name    string
		ready   func(context.Context) error
		during  func()
		queries int
	}{
		{"none", atOnce, nil, 1},
		{"before the query", func(context.Context) error { r.Load().wake(); return nil }, nil, 1},
		{"during the query", atOnce, func() { r.Load().wake() }, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := &keyLister{took: time.Second}
			l.during = func() {
				if tc.during != nil && len(l.begun()) == 1 {
					tc.during()
				}
			}
			rebuilding(t, l, tc.ready, func(k *Filter, now func() time.Duration) {
				r.Store(k)
				time.Sleep(20 * time.Minute)
			})
			if len(l.begun()) != tc.queries {
				t.Errorf("%d queries, want %d", len(l.begun()), tc.queries)
			}
		})
	}
}

func TestRebuildReady(t *testing.T) {
	var cut atomic.Bool
	cut.Store(true)
	lost := errors.New("a host is lost")
	l := &keyLister{n: 100}
	rebuilding(t, l, func(ctx context.Context) error {
		if !kv.Sleep(ctx, time.Minute) {
			return ctx.Err()
		}
		if cut.Load() {
			return lost
		}
		return nil
	}, func(k *Filter, now func() time.Duration) {
		time.Sleep(time.Hour)
		if s := k.Stats(); s.Failures < 3 || !strings.Contains(s.Error, lost.Error()) || len(l.begun()) != 0 {
			t.Errorf("while a host is lost: %d queries, %+v", len(l.begun()), s)
		}
		cut.Store(false)
		time.Sleep(time.Hour)
		if s := k.Stats(); s.Error != "" || !k.Stats().InUse {
			t.Errorf("once it is back: %+v", s)
		}
		if age, since := k.Stats().AgeMS, time.Since(slices.MaxFunc(l.begun(), time.Time.Compare)).Milliseconds(); age != since {
			t.Errorf("the filter is %d ms old, its query %d ms", age, since)
		}
	})
}

func TestRebuildFails(t *testing.T) {
	broken := errors.New("the list is broken")
	l := &keyLister{n: 100}
	rebuilding(t, l, atOnce, func(k *Filter, now func() time.Duration) {
		time.Sleep(20 * time.Minute)
		l.fail(broken)
		time.Sleep(39 * time.Minute)
		if s := k.Stats(); !s.InUse || k.MayExist(hashOf("absent", 1)) {
			t.Errorf("the old filter is not used any more: %+v", s)
		}
		time.Sleep(24 * time.Hour)
		for range 100 { // a wake does not shorten the back-off
			k.wake()
			time.Sleep(time.Second)
		}
		s := k.Stats()
		if !strings.Contains(s.Error, broken.Error()) || s.Failures < 24 || s.Failures > 200 || s.Building {
			t.Errorf("after a day of failures: %+v", s)
		}
		if !k.MayExist(hashOf("absent", 1)) {
			t.Error("a filter that is too old denies")
		}
		l.fail(nil)
		time.Sleep(time.Hour)
		if now := k.Stats(); now.Error != "" || now.Failures < s.Failures {
			t.Errorf("and then: %+v", now)
		}
		l.fail(broken)
		k.wake()
		time.Sleep(10 * time.Second)
		n := len(l.begun())
		time.Sleep(20 * time.Second)
		if len(l.begun()) == n {
			t.Error("the first failure after a success waits as long as the last one before it")
		}
	})
	queries := l.begun()
	for i := range queries[1:] {
		if wait := queries[i+1].Sub(queries[i]); wait < 10*time.Second || wait > 31*time.Minute {
			t.Errorf("query %d came %v after the one before", i+1, wait)
		}
	}
}

func TestRebuildTooMany(t *testing.T) {
	l := &keyLister{n: 1 << 20}
	rebuilding(t, l, atOnce, func(k *Filter, now func() time.Duration) {
		time.Sleep(time.Minute)
		if s := k.Stats(); s.Failures == 0 || s.Error == "" || s.Builds != 0 || k.Stats().InUse {
			t.Errorf("%+v, %+v", s, k.Stats())
		}
	})
	if given := l.given / len(l.begun()); given > 1100 {
		t.Errorf("took %d keys of a list, where 1,000 are stated", given)
	}
}

func TestRebuildStops(t *testing.T) {
	t.Run("in a query", func(t *testing.T) {
		l := &keyLister{took: 5 * time.Minute}
		rebuilding(t, l, atOnce, func(k *Filter, now func() time.Duration) { time.Sleep(time.Minute) })
	})
	t.Run("in a wait for hosts", func(t *testing.T) {
		ready := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		rebuilding(t, &keyLister{}, ready, func(k *Filter, now func() time.Duration) {
			time.Sleep(time.Minute)
			if s := k.Stats(); s.Failures != 0 || s.Error != "" {
				t.Errorf("%+v", s)
			}
		})
	})
	t.Run("before anything", func(t *testing.T) {
		rebuilding(t, &keyLister{}, atOnce, func(k *Filter, now func() time.Duration) {})
	})
}
