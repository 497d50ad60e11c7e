package sidecar

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// movedClock is a clock that a test moves on.
type movedClock struct {
	kv.Clock
	by atomic.Int64
}

func (c *movedClock) Read() kv.Moment {
	now, by := c.Clock.Read(), time.Duration(c.by.Load())
	now.Boot += by
	now.Wall += by.Milliseconds()
	return now
}

// TestReloadLagOfLateDeletion: a deletion that comes while a replica_lag grows, and has no
// barrier of its own, keeps loads out for the whole replica_lag all the same.
func TestReloadLagOfLateDeletion(t *testing.T) {
	testenv.ReadsClock(t, 50*time.Millisecond, "the reload comes to the lock, which nothing shows; later, the test finds less")
	const lag = 10 * time.Second
	clock := &movedClock{Clock: kv.NewSystemClock()}
	origin := &source{name: "old"}
	r := newReloaded(t, Config{clock: clock, Namespaces: map[string]Namespace{"pages": from(origin)}})
	next := r.cfg
	ns := from(origin)
	ns.ReplicaLag = lag
	next.Namespaces = map[string]Namespace{"pages": ns}
	_, next, err := r.s.next(next)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := r.s.engine.Namespaces.Prepare(t.Context(), next.namespaces())
	if err != nil {
		t.Fatal(err)
	}
	r.s.engine.Namespaces.Mu.Lock() // the reload stands before its settings take effect
	done := make(chan struct{})
	go func() { // ends with the reload
		defer close(done)
		r.s.engine.Reload(plan)
	}()
	time.Sleep(50 * time.Millisecond)
	clock.by.Add(int64(4 * time.Second))
	err = r.s.Delete(context.Background(), "pages", "k", cachesidecar.DeleteOptions{})
	r.s.engine.Namespaces.Mu.Unlock()
	<-done
	if !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Fatal(err)
	}
	clock.by.Add(int64(8 * time.Second))
	r.get("pages", "k")
	r.get("pages", "k")
	if n := origin.loads.Load(); n != 2 {
		t.Errorf("%d loads, want 2: the first is kept %v after the deletion, of a replica_lag of %v", n, 8*time.Second, lag)
	}
}
