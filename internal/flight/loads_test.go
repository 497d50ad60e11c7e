package flight

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { testenv.Main(m) }

func keyOf(s string) kv.Key {
	return kv.Key{Hash: kv.HashKey(1, []byte(s)), Namespace: 3, Bytes: []byte(s)}
}

// origin is the fetch function of a Load. It runs in virtual time and counts its calls.
type origin struct {
	calls atomic.Int64
	takes time.Duration
	value loader.Value
	err   error
}

func (o *origin) fetch(ctx context.Context) (loader.Value, error) {
	o.calls.Add(1)
	select {
	case <-time.After(o.takes):
		return o.value, o.err
	case <-ctx.Done():
		return loader.Value{}, ctx.Err()
	}
}

// versions stamps loads with the versions 1, 2, 3, …
type versions struct{ last atomic.Uint64 }

func (v *versions) begin() Stamp { return Stamp{Version: kv.Version(v.last.Add(1))} }

func newLoads(t *testing.T) *Loads {
	t.Helper()
	l := NewLoads()
	t.Cleanup(l.Close)
	return l
}

// check fails the test unless the table is empty.
func (loads *Loads) check(t *testing.T) {
	t.Helper()
	loads.table.Lock()
	defer loads.table.Unlock()
	if len(loads.table.byHash) != 0 || loads.stats.UnderWay != 0 || loads.stats.Waiting != 0 {
		t.Errorf("left: %d in the table, %d under way, %d waiting", len(loads.table.byHash), loads.stats.UnderWay, loads.stats.Waiting)
	}
}

func TestTenThousandWaitForOneLoad(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{takes: time.Second, value: loader.Value{Bytes: []byte("x")}}, &versions{}
		var kept atomic.Int64
		load := Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch, Keep: func(Result) bool { kept.Add(1); return true }}
		var wg sync.WaitGroup
		for range 10000 {
			wg.Go(func() {
				r, err := l.Get(t.Context(), load)
				if err != nil || string(r.Bytes) != "x" || r.Version != 1 || r.NoStore {
					t.Errorf("got %+v, %v", r, err)
				}
			})
		}
		wg.Wait()
		if o.calls.Load() != 1 || kept.Load() != 1 {
			t.Errorf("%d calls, kept %d times, want 1 and 1", o.calls.Load(), kept.Load())
		}
		if s := l.Stats(); s.Loads != 1 || s.Collapsed != 9999 {
			t.Errorf("stats %+v", s)
		}
		l.check(t)
	})
}

func TestWaiterLeavesAlone(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{takes: time.Second, value: loader.Value{Bytes: []byte("x")}}, &versions{}
		load := Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch}
		first, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Get(first, load); !errors.Is(err, context.Canceled) {
				t.Errorf("the first caller got %v", err)
			}
		})
		synctest.Wait()
		wg.Go(func() {
			if r, err := l.Get(t.Context(), load); err != nil || string(r.Bytes) != "x" {
				t.Errorf("the second caller got %+v, %v", r, err)
			}
		})
		synctest.Wait()
		cancel()
		wg.Wait()
		if s := l.Stats(); o.calls.Load() != 1 || s.Waiting != 0 {
			t.Errorf("%d calls, stats %+v", o.calls.Load(), s)
		}
		l.check(t)
	})
}

func TestDetach(t *testing.T) {
	for _, tc := range []struct {
		name   string
		detach func(*Loads)
	}{
		{"invalidation", func(l *Loads) { l.Invalidate(keyOf("a").Hash) }},
		{"end of a holding", func(l *Loads) {
			p := keyOf("a").Hash.Partition()
			l.InvalidateIf(func(_ kv.NamespaceID, h kv.Hash) bool { return h.Partition() == p })
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				l, o, v := newLoads(t), &origin{takes: time.Second, value: loader.Value{Bytes: []byte("x")}}, &versions{}
				var kept []kv.Version
				load := Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch,
					Keep: func(r Result) bool { kept = append(kept, r.Version); return true }}
				var wg sync.WaitGroup
				get := func(version kv.Version, uncached bool) {
					wg.Go(func() {
						r, err := l.Get(t.Context(), load)
						if err != nil || r.Version != version || r.NoStore != uncached {
							t.Errorf("got %+v, %v; want version %d, uncached %v", r, err, version, uncached)
						}
					})
				}
				get(1, true)
				time.Sleep(time.Second / 2)
				tc.detach(l)
				get(2, false)
				wg.Wait()
				if o.calls.Load() != 2 || len(kept) != 1 || kept[0] != 2 {
					t.Errorf("%d calls, kept %v; want 2 and only the second", o.calls.Load(), kept)
				}
				l.check(t)
			})
		})
	}
}

func TestDetachDuringKeep(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{}, &versions{}
		r, err := l.Get(t.Context(), Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch, Keep: func(Result) bool {
			l.Invalidate(keyOf("a").Hash)
			return true
		}})
		if err != nil || !r.NoStore {
			t.Errorf("got %+v, %v; want it uncached", r, err)
		}
		l.check(t)
	})
}

func TestFreshJoinsNothing(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{takes: time.Second}, &versions{}
		var kept []kv.Version
		load := Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch,
			Keep: func(r Result) bool { kept = append(kept, r.Version); return true }}
		if begun, err := l.Refresh(load); !begun || err != nil {
			t.Fatal(begun, err)
		}
		load.Fresh = true
		if r, err := l.Get(t.Context(), load); err != nil || r.Version != 2 || r.NoStore {
			t.Errorf("got %+v, %v; want version 2", r, err)
		}
		synctest.Wait() // wait for the detached load
		if len(kept) != 1 || kept[0] != 2 {
			t.Errorf("kept %v, want only the fresh one", kept)
		}
		l.check(t)
	})
}

func TestOneHashTwoKeys(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLoads(t), &versions{}
		var wg sync.WaitGroup
		for _, name := range []string{"a", "b"} {
			o := &origin{takes: time.Second, value: loader.Value{Bytes: []byte(name)}}
			wg.Go(func() {
				r, err := l.Get(t.Context(), Load{Key: kv.Key{Hash: 7, Bytes: []byte(name)}, Begin: v.begin, Fetch: o.fetch})
				if err != nil || string(r.Bytes) != name || !r.NoStore {
					t.Errorf("%s got %+v, %v", name, r, err)
				}
			})
		}
		synctest.Wait()
		l.Invalidate(7)
		wg.Wait()
		l.check(t)
	})
}

// TestManyKeysOfOneHash checks that new callers can join at most 8 loads of one hash. A
// further load detaches the first one of its own namespace. The load of the other
// namespace stays.
func TestManyKeysOfOneHash(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLoads(t), &versions{}
		var wg sync.WaitGroup
		var kept [2]atomic.Int64
		load := func(ns kv.NamespaceID, name string) {
			o := &origin{takes: time.Second, value: loader.Value{Bytes: []byte(name)}}
			wg.Go(func() {
				r, err := l.Get(t.Context(), Load{
					Key: kv.Key{Hash: 7, Namespace: ns, Bytes: []byte(name)}, Begin: v.begin, Fetch: o.fetch,
					Keep: func(Result) bool { kept[ns].Add(1); return true },
				})
				if err != nil || string(r.Bytes) != name {
					t.Errorf("%s got %+v, %v", name, r, err)
				}
			})
			synctest.Wait()
			l.table.Lock()
			n := l.table.ofHash(7)
			l.table.Unlock()
			if n > maxOfHash {
				t.Fatalf("%d loads of one hash in the table", n)
			}
		}
		load(1, "neighbour")
		for i := range 1000 {
			load(0, fmt.Sprint(i))
		}
		wg.Wait()
		if kept[1].Load() != 1 || kept[0].Load() != maxOfHash-1 {
			t.Errorf("kept %d of the neighbour's and %d of the others", kept[1].Load(), kept[0].Load())
		}
		l.check(t)
	})
}

func TestLoadEnds(t *testing.T) {
	boom := errors.New("boom")
	for _, tc := range []struct {
		name  string
		fetch func(context.Context) (loader.Value, error)
		want  error
	}{
		{"absent", (&origin{err: loader.ErrAbsent}).fetch, loader.ErrAbsent},
		{"error", (&origin{err: boom}).fetch, boom},
		{"timeout", (&origin{takes: time.Hour}).fetch, context.DeadlineExceeded},
		{"panic", func(context.Context) (loader.Value, error) { panic("boom") }, loader.ErrPermanent},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				l, v := newLoads(t), &versions{}
				absent := tc.want == loader.ErrAbsent // only "absent" is kept
				kept := false
				_, err := l.Get(t.Context(), Load{Key: keyOf("a"), Begin: v.begin, Fetch: tc.fetch, Keep: func(r Result) bool {
					kept = r.Absent
					return true
				}})
				if !errors.Is(err, tc.want) || kept != absent {
					t.Errorf("got %v, kept %v; want %v", err, kept, tc.want)
				}
				l.check(t)
			})
		})
	}
}

func TestPresent(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, v := newLoads(t), &versions{}
		o := &origin{}
		_, err := l.Get(t.Context(), Load{Key: keyOf("a"), Begin: v.begin, Missing: func() bool { return false }, Fetch: o.fetch})
		if s := l.Stats(); err != ErrPresent || o.calls.Load() != 0 || s.Loads != 0 || s.Failed != 0 {
			t.Errorf("got %v after %d calls of the origin, %+v; want ErrPresent, and no load", err, o.calls.Load(), s)
		}
	})
}

func TestLoadsBounds(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{takes: time.Second}, &versions{}
		l.stats.UnderWay, l.stats.Waiting = maxLoads-1, maxWaiters-2 // there is one place, and two
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if _, err := l.Get(t.Context(), Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if _, err := l.Get(t.Context(), Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch}); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("the third waiter got %v", err)
		}
		if _, err := l.Refresh(Load{Key: keyOf("b"), Begin: v.begin, Fetch: o.fetch}); !errors.Is(err, loader.ErrBusy) {
			t.Errorf("the second load got %v", err)
		}
		wg.Wait()
		if s := l.Stats(); s.Shed != 2 {
			t.Errorf("stats %+v", s)
		}
		l.stats.UnderWay, l.stats.Waiting = l.stats.UnderWay-maxLoads+1, l.stats.Waiting-maxWaiters+2
		l.check(t)
	})
}

func TestLoadsClose(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l, o, v := newLoads(t), &origin{takes: time.Hour}, &versions{}
		load := Load{Key: keyOf("a"), Begin: v.begin, Fetch: o.fetch}
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Get(t.Context(), load); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
		})
		synctest.Wait()
		l.Close()
		l.Close()
		wg.Wait()
		if _, err := l.Get(t.Context(), load); !errors.Is(err, ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		l.check(t)
	})
}

// TestLoadsAreOfOneOwnership checks that no caller joins a load of another ownership
// epoch, and that an invalidation detaches the loads of all epochs.
func TestLoadsAreOfOneOwnership(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		l := newLoads(t)
		var v versions
		o := &origin{takes: time.Second}
		load := func(holding uint32) Load {
			return Load{Key: keyOf("k"), OwnershipEpoch: holding, Begin: v.begin, Fetch: o.fetch}
		}
		for _, holding := range []uint32{1, 2, 1, 2} {
			if _, err := l.Refresh(load(holding)); err != nil {
				t.Fatal(err)
			}
		}
		if st := l.Stats(); st.Loads != 2 || st.Collapsed != 2 {
			t.Errorf("%+v, want a load for each of two holdings", st)
		}
		l.Invalidate(keyOf("k").Hash)
		if st := l.Stats(); st.Detached != 2 {
			t.Errorf("%+v, want both detached", st)
		}
		time.Sleep(2 * time.Second)
		l.check(t)
	})
}
