package engine_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// follower follows the changes of a host, in all namespaces.
type follower struct {
	t *testing.T
	h *onehost.Host
	q wire.Request
}

// follow returns a follower that knows the end of the stream.
func follow(t *testing.T, h *onehost.Host) *follower {
	t.Helper()
	f := &follower{t, h, wire.Request{Op: wire.OpWatch, Namespace: []byte("default"), Options: wire.All}}
	if a, _ := f.next(0); !a.Reset {
		t.Fatalf("the first answer is %+v, want a reset", a)
	}
	return f
}

// next returns the next answer, and its size.
func (f *follower) next(wait time.Duration) (a wire.Watched, size int) {
	f.t.Helper()
	q := f.q
	r := f.h.Watches.Watched(&q, wait, func(string) bool { return true })
	if err := wire.UnmarshalBody(r.Body, &a); err != nil {
		f.t.Fatal(r.Err(), err)
	}
	if !a.Reset && (a.After != f.q.Seq || a.Epoch != f.q.Epoch) || a.Seq > a.Head {
		f.t.Fatalf("after %d of %d: %+v", f.q.Seq, f.q.Epoch, a)
	}
	f.q.Epoch, f.q.Seq = a.Epoch, a.Seq
	return a, len(r.Body)
}

// TestWatchResets checks that a follower of another stream, or one that has lost its place,
// starts anew. It is never told that it knows everything.
func TestWatchResets(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	f := follow(t, h)
	for _, tc := range []struct {
		name       string
		epoch, seq uint64
	}{{"another stream", f.q.Epoch + 1, f.q.Seq}, {"a place to come", f.q.Epoch, f.q.Seq + 1}} {
		f.q.Epoch, f.q.Seq = tc.epoch, tc.seq
		if a, _ := f.next(0); !a.Reset || a.Seq != a.Head {
			t.Errorf("%s: %+v, want a reset", tc.name, a)
		}
	}
	epoch := f.q.Epoch
	for range engine.WatchEvents {
		h.Delete("k", 0)
	}
	if a, _ := f.next(0); a.Reset || a.Events.Len() != engine.WatchAnswer || a.Seq != a.After+engine.WatchAnswer ||
		a.Head != a.After+engine.WatchEvents {
		t.Errorf("a full log: %v, %d events from %d to %d of %d", a.Reset, a.Events.Len(), a.After, a.Seq, a.Head)
	}
	// No follower asks while the log fills: the stream is dropped.
	for range engine.WatchEvents + 1 {
		h.Delete("k", 0)
	}
	if h.Watches.Stream.Load() != nil {
		t.Errorf("a stream that no client can follow goes on")
	}
	if a, _ := f.next(0); !a.Reset || a.Epoch == epoch {
		t.Errorf("got %+v, want a reset of another stream", a)
	}
	h.Delete("k", 0)
	if a, _ := f.next(0); a.Reset || a.Events.Len() != 1 {
		t.Errorf("got %+v, want the next event", a)
	}
}

// TestWatchAnswerIsBounded checks that the size of an answer is bounded, whatever details
// the events have.
func TestWatchAnswerIsBounded(t *testing.T) {
	h := onehost.New(t, onehost.Config{})
	f := follow(t, h)
	set := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		set.Add(p)
	}
	const n = 2000
	for range n {
		h.Watches.Tell(invalidation.Event{Kind: invalidation.FloorRaised, Version: 1, Detail: &invalidation.Detail{Partitions: set}})
	}
	for got := 0; got < n; {
		a, size := f.next(0)
		if size > engine.WatchBytes+engine.WatchAnswer*17+4096 {
			t.Fatalf("an answer of %d bytes", size)
		}
		if a.Events.Len() == 0 {
			t.Fatalf("the stream ends after %d of %d", got, n)
		}
		got += a.Events.Len()
	}
}

// TestWatchesGather checks that WATCHes gather changes for longer, the more of them wait:
// otherwise every change would wake each of them. A single WATCH is answered at once.
func TestWatchesGather(t *testing.T) {
	for _, n := range []int{1, 50} {
		bubble.Test(t, func(t *testing.T) {
			h := onehost.New(t, onehost.Config{})
			f := follow(t, h)
			begun := time.Now()
			took := make(chan time.Duration, n)
			for range n {
				own := *f
				go func() {
					own.next(time.Minute)
					took <- time.Since(begun)
				}()
			}
			time.Sleep(2 * time.Millisecond)
			h.Delete("k", 0)
			want := 2 * time.Millisecond
			if n > 1 {
				want += time.Duration(n) * engine.GatherForEach
			}
			for range n {
				if d := <-took; d != want {
					t.Fatalf("%d wait: one was told after %v, want %v", n, d, want)
				}
			}
		})
	}
}

// TestWatchesAtOnce checks that the number of answers that are made at the same time is
// bounded. The others wait for a place.
func TestWatchesAtOnce(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{})
		f := follow(t, h)
		if n := cap(h.Watches.Answers); n != engine.WatchedAtOnce {
			t.Errorf("%d answers are made at a time, want %d", n, engine.WatchedAtOnce)
		}
		for range engine.WatchedAtOnce {
			h.Watches.Answers <- struct{}{}
		}
		told := make(chan struct{})
		go func() { f.next(0); close(told) }()
		synctest.Wait()
		select {
		case <-told:
			t.Error("an answer was made without a place")
		default:
		}
		for range engine.WatchedAtOnce {
			<-h.Watches.Answers
		}
		<-told
		if n := len(h.Watches.Answers); n != 0 {
			t.Errorf("%d places are kept", n)
		}
	})
}
