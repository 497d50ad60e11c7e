package invalidation

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// keyIn returns a hash in a partition.
func keyIn(p uint16, n uint64) kv.Hash { return kv.Hash(uint64(p)<<(64-kv.PartitionBits) | n) }

func setOf(ps ...uint16) kv.PartitionSet {
	s := kv.NewPartitionSet(kv.Partitions)
	for _, p := range ps {
		s.Add(p)
	}
	return s
}

// TestLogKnowsWhatItHas: at any place a reader gets every event after it, or is told
// that they are gone. Then the marks name every partition concerned.
func TestLogKnowsWhatItHas(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{1, 2, 7, 64} {
		l := NewLog(size)
		var all []Event
		for range 500 {
			e := Event{Kind: Changed, Hash: keyIn(uint16(rnd.IntN(8)), rnd.Uint64N(100)), Version: kv.Version(len(all) + 1)}
			switch rnd.IntN(20) {
			case 0, 1:
				e = Event{Kind: FloorRaised, Version: e.Version, Detail: &Detail{Partitions: setOf(uint16(rnd.IntN(8)), uint16(rnd.IntN(8)))}}
			case 2:
				e = Event{Kind: Flushed, Version: e.Version, Detail: &Detail{Namespace: "ns"}}
			}
			all = append(all, e)
			if got := l.Append(e); got != uint64(len(all)) {
				t.Fatalf("event %d is at place %d", len(all), got)
			}
			place, most := uint64(rnd.IntN(len(all)+3)), 1+rnd.IntN(100)
			got, ok := l.After(place, most, nil)
			if want := place <= uint64(len(all)) && uint64(len(all))-place <= uint64(size); ok != want {
				t.Fatalf("size %d, %d events: After(%d) says %v", size, len(all), place, ok)
			}
			if !ok {
				r := l.Reset(place)
				want := map[uint16]Mark{}
				for i, e := range all {
					switch e.Kind {
					case Changed:
						m := want[e.Hash.Partition()]
						m.Partition, m.Changed = e.Hash.Partition(), uint64(i+1)
						want[m.Partition] = m
					case FloorRaised:
						for p := range e.Detail.Partitions.All() {
							m := want[p]
							m.Partition, m.Raised = p, uint64(i+1)
							want[p] = m
						}
					}
				}
				if place > uint64(len(all)) {
					place = 0
				}
				n := 0
				for _, m := range want {
					if m.Changed > place || m.Raised > place {
						n++
						if !slices.Contains(r.Since, m) {
							t.Fatalf("reset after %d: no %+v in %+v", place, m, r.Since)
						}
					}
				}
				if r.Head != uint64(len(all)) || len(r.Since) != n {
					t.Fatalf("reset: head %d with %d marks, want %d with %d", r.Head, len(r.Since), len(all), n)
				}
				continue
			}
			for i, e := range got {
				if e != all[int(place)+i] {
					t.Fatalf("after %d: event %d is %+v", place, i, e)
				}
			}
			if want := min(most, len(all)-int(place)); len(got) != want {
				t.Fatalf("after %d: %d events, want %d", place, len(got), want)
			}
		}
	}
}

func TestLogWait(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := NewLog(4)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begun := time.Now()
		l.Wait(ctx, 0)
		if d := time.Since(begun); d != time.Second {
			t.Errorf("an empty log was waited for %v", d)
		}
		var wg sync.WaitGroup
		for range 3 { // all waiters are woken
			wg.Go(func() { l.Wait(t.Context(), 0) })
		}
		synctest.Wait()
		l.Append(Event{})
		wg.Wait()
		l.Wait(t.Context(), 0) // the event is there already
		l.Wait(t.Context(), 9) // it is no place
	})
}

// TestAppendAllocatesNothing: Append is part of every write.
func TestAppendAllocatesNothing(t *testing.T) {
	l := NewLog(64)
	testenv.Allocates(t, "Append", 0, 1000, func() { l.Append(Event{Kind: Changed, Hash: 5, Version: 7}) })
}

// TestLease: the lease moves to the moment a poll was sent once everything up to the
// head that its answer named is applied. The order of the two does not matter, and
// the lease never moves back.
func TestLease(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name string
		run  func(f *Follower) time.Duration
		want time.Duration
	}{
		{"nothing was ever there", func(f *Follower) time.Duration { return f.Polled(1*s, 0) }, 1 * s},
		{"not applied", func(f *Follower) time.Duration { return f.Polled(1*s, 3) }, 0},
		{"applied in part", func(f *Follower) time.Duration {
			f.Polled(1*s, 3)
			l, _ := f.Advance(0, 2)
			return l
		}, 0},
		{"applied later", func(f *Follower) time.Duration {
			f.Polled(1*s, 3)
			l, _ := f.Advance(0, 3)
			return l
		}, 1 * s},
		{"applied before", func(f *Follower) time.Duration {
			f.Advance(0, 5)
			return f.Polled(2*s, 3)
		}, 2 * s},
		{"the first of two", func(f *Follower) time.Duration {
			f.Polled(1*s, 3)
			f.Polled(2*s, 9)
			l, _ := f.Advance(0, 5)
			return l
		}, 1 * s},
		{"an answer that is late", func(f *Follower) time.Duration {
			f.Polled(2*s, 0)
			return f.Polled(1*s, 0)
		}, 2 * s},
		{"a reset", func(f *Follower) time.Duration {
			f.Polled(1*s, 3)
			return f.Reset(7)
		}, 1 * s},
		{"dropped", func(f *Follower) time.Duration {
			f.Polled(1*s, 0)
			f.Polled(2*s, 3)
			f.Drop()
			l, _ := f.Advance(0, 3)
			return l
		}, 0},
		{"polled more often than applied", func(f *Follower) time.Duration {
			for i := range 100 {
				f.Polled(time.Duration(i+1)*s, uint64(i+1))
			}
			l, _ := f.Advance(0, 100)
			return l
		}, maxPolls * s},
	} {
		if got := tc.run(&Follower{}); got != tc.want {
			t.Errorf("%s: the lease is of %v, want %v", tc.name, got, tc.want)
		}
	}
	var f Follower
	f.Advance(0, 4)
	for _, step := range [][2]uint64{{3, 9}, {5, 9}, {4, 3}} {
		if _, ok := f.Advance(step[0], step[1]); ok || f.Applied() != 4 {
			t.Errorf("from %d to %d was taken at 4: now %d", step[0], step[1], f.Applied())
		}
	}
}
