package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// onTheWay is a host b whose partitions are on their way from a. Nothing is pulled.
type onTheWay struct {
	a, b   *host
	ballot *kv.Ballot
	src    *handoff.Source

	mu   sync.Mutex
	list []string // the keys that a was asked for
}

func fetching(t *testing.T, f func(t *testing.T, w *onTheWay)) {
	t.Helper()
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		w := &onTheWay{a: hosts[0], b: hosts[1], ballot: hosts[1].ballot()}
		w.src = w.b.from(w.ballot, w.a, all())
		w.a.fetch = func(from kv.Process, q *wire.Fetch) wire.Reply {
			w.mu.Lock()
			w.list = append(w.list, q.Namespace+"/"+string(q.Key))
			w.mu.Unlock()
			return w.a.ServeFetch(from, q)
		}
		f(t, w)
	})
}

// release lets b ask for what a has stored until now.
func (w *onTheWay) release() kv.Version { return w.a.release(w.ballot, all()) }

// fetch asks for a key, for at most a second.
func (w *onTheWay) fetch(namespace string, k kv.Key) error {
	return w.b.Fetch(context.Background(), w.src, namespace, k, time.Second)
}

// asked returns the keys that a was asked for, sorted.
func (w *onTheWay) asked() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(slices.Values(w.list))
}

// TestFetch checks that an entry that is asked for while its partition is on its way comes
// as it would in the stream, once.
func TestFetch(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		end := kv.After(a.boot(), time.Hour)
		k := a.write("default", "k", segment.Write{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 9}, Deadline: end}})
		absent, nothing := a.absent("absent", time.Hour), a.key("default", "nothing")
		w.release()
		for _, key := range []kv.Key{k, absent, nothing} {
			if err := w.fetch("default", key); err != nil {
				t.Errorf("%s: %v", key.Bytes, err)
			}
		}
		v, info, ok := b.store.Get(nil, k, segment.NoLimit, b.boot())
		want, _ := a.store.Peek(k, a.boot())
		early := want.Deadline - info.Deadline
		info.Deadline = want.Deadline
		if !ok || string(v) != "v" || info != want || early < 1 || early > 72_005 {
			t.Errorf("it is %q, %+v, and ends %d ms early; want %+v", v, info, early, want)
		}
		if info, ok := b.store.Peek(absent, b.boot()); !ok || info.Kind != kv.Absent {
			t.Errorf("a negative entry: %+v, %v", info, ok)
		}
		if b.has(nothing) {
			t.Error("an entry that the releaser does not have is there")
		}
		if got := b.Stats(); got != (cachesidecar.HandoffStats{Fetched: 2}) {
			t.Errorf("it counts %+v", got)
		}
		list := []string{"default/absent", "default/k", "default/nothing"}
		if got := w.asked(); !slices.Equal(got, list) {
			t.Errorf("the releaser is asked for %v, want %v", got, list)
		}

		// Present by now, or not awaited any more.
		gone := a.key("default", "gone")
		b.Incoming[gone.Hash.Partition()].Store(nil)
		for _, key := range []kv.Key{k, absent, gone} {
			if err := w.fetch("default", key); err != nil {
				t.Errorf("%s: %v", key.Bytes, err)
			}
		}
		b.Incoming[nothing.Hash.Partition()].Store(&handoff.Source{From: w.src.From})
		if err := w.fetch("default", nothing); err != nil {
			t.Error(err)
		}
		if got := w.asked(); !slices.Equal(got, list) {
			t.Errorf("the releaser is asked for %v, want %v and no more", got, list)
		}
	})
}

// TestFetchLeavesTheStreamWhole checks that the stream brings an entry that was asked for while
// the stream was under way: the answer may be lost.
func TestFetchLeavesTheStreamWhole(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		keys := a.batches()
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			if q.Batch == 1 {
				for _, k := range keys {
					a.ServeFetch(from, &wire.Fetch{Ballot: q.Ballot, Namespace: "default", Key: k.Bytes})
				}
			}
			return a.ServePull(from, q)
		}
		move(a, b, keys...)
		if n := b.count(keys); n != len(keys) {
			t.Errorf("%d of %d entries are there", n, len(keys))
		}
	})
}

// TestFetchWithoutRoom checks that a fetch whose entry finds no room here is an error: the entry
// may still come with the stream.
func TestFetchWithoutRoom(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		w.a.put("more", "k", "v", 0)
		k := w.a.key("more", "k")
		w.release()
		for i := range maxNames - 1 { // beside the configured one
			w.b.put(fmt.Sprint("name", i), "k", "v", 0)
		}
		if err := w.fetch("more", k); err == nil || !strings.Contains(err.Error(), "no room") {
			t.Errorf("without a slot for its name: %v", err)
		}
		w.b.store.Delete(w.b.key("name0", "k"), w.b.clock.Read())
		time.Sleep(2 * namespaces.SearchEvery)
		if err := w.fetch("more", k); err != nil || !w.b.has(w.b.key("more", "k")) {
			t.Errorf("with a slot: %v", err)
		}
	})
}

// TestFetchAheadOfPull checks that an entry can be asked for while the stream is under way,
// and that the stream does not bring it again.
func TestFetchAheadOfPull(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		keys := a.batches()
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			if q.Batch == 0 {
				src := b.Incoming[keys[0].Hash.Partition()].Load()
				err := b.Fetch(context.Background(), src, "default", keys[0], time.Second)
				if err != nil || !b.has(keys[0]) {
					t.Errorf("%v, it is there: %v", err, b.has(keys[0]))
				}
			}
			return a.ServePull(from, q)
		}
		move(a, b, keys...)
		got, n := b.Stats(), int64(len(keys))
		got.Bytes = 0
		if want := (cachesidecar.HandoffStats{Pulled: n, Admitted: n - 1, Refused: 1, Fetched: 1}); got != want {
			t.Errorf("it counts %+v, want %+v", got, want)
		}
		if b.count(keys) != len(keys) {
			t.Errorf("%d of %d entries are there", b.count(keys), n)
		}
	})
}

// TestFetchOutdated checks that an entry that is asked for is not stored if this host
// knows of a later change.
func TestFetchOutdated(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		k := a.put("default", "k", "v", 0)
		asOf := w.release()
		b.ledger.Note(k.Hash, asOf+1)
		if err := w.fetch("default", k); err != nil {
			t.Error(err)
		}
		if b.has(k) || b.Counts.Fetched.Load() != 0 || len(w.asked()) != 1 {
			t.Errorf("it is there: %v; %+v, asked for %v", b.has(k), b.Stats(), w.asked())
		}
	})
}

// TestFetchFindsNothing checks that an answer counts as it says: that nothing was found.
func TestFetchFindsNothing(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		k := a.key("default", "k")
		a.fetch = func(kv.Process, *wire.Fetch) wire.Reply {
			now := uint64(a.next())
			e := wire.Entry{Namespace: "default", Key: k.Bytes, Value: []byte("v"), Version: now}
			return wire.BodyReply(wire.Fetched{AsOf: now, Entry: e})
		}
		if err := w.fetch("default", k); err != nil || b.has(k) || b.Counts.Fetched.Load() != 0 {
			t.Errorf("%v, it is there: %v; %+v", err, b.has(k), b.Stats())
		}
	})
}

// TestFetchIsShared checks that readers of one key share a request, and that others do
// not: those of another key, or of the same key in another namespace.
func TestFetchIsShared(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		k, l, m := a.put("default", "k", "v", 0), a.put("default", "l", "v", 0), a.put("other", "k", "v", 0)
		b.key("other", "k")
		w.release()
		var readers sync.WaitGroup
		for range 10 {
			for namespace, key := range map[string]kv.Key{"default": k, "other": m} {
				readers.Go(func() {
					if err := w.fetch(namespace, key); err != nil || !b.has(key) {
						t.Errorf("%s: %v, it is there: %v", key.Bytes, err, b.has(key))
					}
				})
			}
		}
		readers.Go(func() {
			if err := w.fetch("default", l); err != nil || !b.has(l) {
				t.Errorf("%s: %v, it is there: %v", l.Bytes, err, b.has(l))
			}
		})
		readers.Wait()
		if got, want := w.asked(), []string{"default/k", "default/l", "other/k"}; !slices.Equal(got, want) {
			t.Errorf("the releaser is asked for %v, want %v", got, want)
		}
	})
}

// TestFetchIsBounded checks that a reader waits no longer than its time, or than its
// context, and that the entry that it has asked for is stored if it comes later.
func TestFetchIsBounded(t *testing.T) {
	for _, tc := range []struct {
		name             string
		timeout, context time.Duration
		want             error
	}{
		{"its time", 200 * time.Millisecond, time.Minute, context.DeadlineExceeded},
		{"its context", time.Minute, 200 * time.Millisecond, context.Canceled},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fetching(t, func(t *testing.T, w *onTheWay) {
				a, b := w.a, w.b
				k := a.put("default", "k", "v", 0)
				w.release()
				serve := a.fetch
				a.fetch = func(from kv.Process, q *wire.Fetch) wire.Reply {
					time.Sleep(500 * time.Millisecond)
					return serve(from, q)
				}
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				time.AfterFunc(tc.context, cancel)
				mine := k
				mine.Bytes = slices.Clone(k.Bytes)
				began := time.Now()
				err := b.Fetch(ctx, w.src, "default", mine, tc.timeout)
				if took := time.Since(began); !errors.Is(err, tc.want) || took != 200*time.Millisecond {
					t.Errorf("%v after %v", err, took)
				}
				if b.has(k) {
					t.Error("it is there too early")
				}
				time.Sleep(time.Second)
				if !b.has(k) || b.Counts.Fetched.Load() != 1 {
					t.Errorf("later it is there: %v; %+v", b.has(k), b.Stats())
				}
			})
		})
	}
}

// TestFetchKeepsNoBytes checks that a fetch that its reader has left does not read that
// reader's key any more.
func TestFetchKeepsNoBytes(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		k := a.put("default", "k", "v", 0)
		w.release()
		goOn := make(chan struct{})
		wait := func() { <-goOn }
		b.clock.then.Store(&wait) // before the fetch makes its request
		mine := k
		mine.Bytes = slices.Clone(k.Bytes)
		err := b.Fetch(context.Background(), w.src, "default", mine, time.Millisecond)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		copy(mine.Bytes, "x")
		close(goOn)
		time.Sleep(time.Second)
		if got := w.asked(); !slices.Equal(got, []string{"default/k"}) || !b.has(k) {
			t.Errorf("the releaser is asked for %v; it is there: %v", got, b.has(k))
		}
	})
}

// TestFetchFails checks that a reader is told if the releaser could not be asked, or has
// not answered in a second.
func TestFetchFails(t *testing.T) {
	fetching(t, func(t *testing.T, w *onTheWay) {
		a, b := w.a, w.b
		k := a.put("default", "k", "v", 0)
		end := make(chan struct{})
		defer close(end)
		a.fetch = func(kv.Process, *wire.Fetch) wire.Reply { <-end; return wire.Reply{} }
		began := time.Now()
		err := b.Fetch(context.Background(), w.src, "default", k, time.Minute)
		if took := time.Since(began); err == nil || took != time.Second {
			t.Errorf("without an answer: %v after %v", err, took)
		}
		w.src.From.Epoch--
		if err := w.fetch("default", k); err == nil {
			t.Error("a process that is not there was asked")
		}
		if b.has(k) || b.Stats() != (cachesidecar.HandoffStats{}) {
			t.Errorf("it is there: %v; %+v", b.has(k), b.Stats())
		}
	})
}
