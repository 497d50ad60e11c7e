package sidecar

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// inStream runs f in virtual time on a host that is alone. q follows the host's stream
// from now on.
func inStream(t *testing.T, f func(s *Sidecar, q *wire.Request)) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		w.nodes[0].start()
		s := w.nodes[0].s
		q := &wire.Request{Op: wire.OpWatch, Namespace: session.DefaultNamespace, Options: wire.All}
		var a wire.Watched
		r := s.engine.Watches.Watched(q, 0, tellAll)
		if err := wire.UnmarshalBody(r.Body, &a); err != nil {
			t.Fatal(err)
		}
		q.Epoch, q.Seq = a.Epoch, a.Seq
		f(s, q)
		w.nodes[0].leave()
	})
}

func tellAll(string) bool { return true }

// The more WATCHes wait, the longer they gather changes: otherwise every change would
// wake each of them. A single WATCH is answered at once.
func TestVirtualWatchesGather(t *testing.T) {
	for _, n := range []int{1, 50} {
		inStream(t, func(s *Sidecar, q *wire.Request) {
			begun := time.Now()
			took := make(chan time.Duration, n)
			for range n {
				own := *q
				go func() {
					s.engine.Watches.Watched(&own, time.Minute, tellAll)
					took <- time.Since(begun)
				}()
			}
			time.Sleep(2 * time.Millisecond)
			s.engine.Changes.Note(kv.Hash(7), 1)
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

// The number of answers that are made at the same time is bounded. The others wait for a
// place.
func TestVirtualWatchesAtOnce(t *testing.T) {
	inStream(t, func(s *Sidecar, q *wire.Request) {
		if n := cap(s.engine.Watches.Answers); n != engine.WatchedAtOnce {
			t.Errorf("%d answers are made at a time, want %d", n, engine.WatchedAtOnce)
		}
		for range engine.WatchedAtOnce {
			s.engine.Watches.Answers <- struct{}{}
		}
		told := make(chan struct{})
		go func() { s.engine.Watches.Watched(q, 0, tellAll); close(told) }()
		synctest.Wait()
		select {
		case <-told:
			t.Error("an answer was made without a place")
		default:
		}
		for range engine.WatchedAtOnce {
			<-s.engine.Watches.Answers
		}
		<-told
		if n := len(s.engine.Watches.Answers); n != 0 {
			t.Errorf("%d places are kept", n)
		}
	})
}
