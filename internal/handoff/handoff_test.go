package handoff_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// TestEntriesMove checks what an entry brings along: value, version, flags, the mark of a
// negative entry, and the time that it has left. Stale and expired values stay.
func TestEntriesMove(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		a.key("first", "") // so that "other" has another slot there
		end := kv.After(a.boot(), time.Hour)
		moves := []kv.Key{
			a.write("default", "flags", segment.Write{Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: math.MaxUint32}, Deadline: end}}),
			a.put("default", "ever", "w", 0),
			a.put("default", "years", "w", 10*365*24*time.Hour),
			a.put("default", "empty", "", time.Hour),
			a.put("default", "chain", strings.Repeat("long", 10<<10), time.Hour),
			a.put("default", strings.Repeat("k", kv.MaxKeyLen), "v", time.Hour),
			a.put("other", "ever", "of another namespace", time.Hour),
			a.absent("absent", time.Hour),
		}
		soft := a.put("default", "soft", "v", time.Hour)
		a.store.Soften(soft, a.clock.Read())
		stays := []kv.Key{soft, a.put("default", "expired", "v", time.Millisecond)}
		time.Sleep(time.Second)
		move(a, b, slices.Concat(moves, stays)...)

		size := int64(0)
		for _, k := range moves {
			want, info, _ := a.store.Get(nil, k, segment.NoLimit, a.boot())
			size += int64(len(k.Bytes) + len(want))
			there := b.key(a.names.InSlot(k.Namespace).Name, string(k.Bytes))
			got, moved, ok := b.store.Get(nil, there, segment.NoLimit, b.boot())
			early, left := info.Deadline-moved.Deadline, info.Deadline.TTLms(a.boot()) // milliseconds
			moved.Deadline = info.Deadline
			if !ok || string(got) != string(want) || moved != info {
				t.Errorf("%.10s is %.10q, %+v, %v; want %.10q, %+v", k.Bytes, got, moved, ok, want, info)
			}
			if info.Deadline == 0 && early != 0 || info.Deadline != 0 && (early < 1 || int64(early) > left*2/100+5) {
				t.Errorf("%.10s ends %d ms earlier than at its last owner, want up to 2 %%", k.Bytes, early)
			}
		}
		for _, k := range stays {
			if b.has(k) {
				t.Errorf("%s has moved", k.Bytes)
			}
			if _, _, ok := b.store.GetStale(nil, k, b.boot()); ok {
				t.Errorf("%s has moved, as a stale value", k.Bytes)
			}
		}
		n := int64(len(moves))
		if got, want := a.Stats(), (cachesidecar.HandoffStats{Sent: n}); got != want {
			t.Errorf("the last owner counts %+v, want %+v", got, want)
		}
		want := cachesidecar.HandoffStats{Pulled: n, Admitted: n, Bytes: size}
		if got := b.Stats(); got != want {
			t.Errorf("the new owner counts %+v, want %+v", got, want)
		}
		if b.waits(moves...) {
			t.Error("entries are awaited after the pull")
		}
	})
}

// TestHottestFirst checks that entries come by how often they were hit, over all batches,
// and that the new owner keeps those with two hits or more as entries that were admitted.
func TestHottestFirst(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		const n = 80 // of 8 KB each: several batches
		var keys []kv.Key
		hits := map[string]int{}
		for i := range n {
			k := a.put("default", fmt.Sprint("key", i), strings.Repeat("v", 8000), 0)
			keys = append(keys, k)
			hits[string(k.Bytes)] = i % (segment.MaxHits + 1)
			for range hits[string(k.Bytes)] {
				a.store.Get(nil, k, segment.NoLimit, a.boot())
			}
		}
		var order []int
		batches := 0
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			r := a.ServePull(from, q)
			some := decoded[wire.Pulled](t, r)
			batches++
			for _, e := range some.Entries {
				order = append(order, hits[string(e.Key)])
				if e.Hits != hits[string(e.Key)] {
					t.Errorf("%s came with %d hits, it has %d", e.Key, e.Hits, hits[string(e.Key)])
				}
			}
			return r
		}
		move(a, b, keys...)
		if !slices.IsSortedFunc(order, func(x, y int) int { return y - x }) || len(order) != n || batches < 3 {
			t.Errorf("in %d batches the hits were %v", batches, order)
		}
		// Package segment counts what goes to the main queue at once.
		if got := b.store.Stats().GhostHits; got != n/2 {
			t.Errorf("%d entries were admitted at once, want the %d with two hits or more", got, n/2)
		}
	})
}

// decoded returns the body of an answer that must be OK.
func decoded[T any](t *testing.T, r wire.Reply) (v T) {
	t.Helper()
	if r.Status != wire.OK {
		t.Errorf("%s: %s", r.Status, r.Message)
		return v
	}
	if err := wire.UnmarshalBody(r.Body, &v); err != nil {
		t.Error(err)
	}
	return v
}

// TestBegin checks what an ownership begins with: no entry from before, the ends of the
// others' logs, the time, and one source for each partition that another host has
// released.
func TestBegin(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		b := newHost(t, "b", soft)
		at := func(p uint16) *handoff.Source { return b.Incoming[p].Load() }
		old := b.put("default", "old", "v", 0)
		a, c := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "c", Epoch: 1}
		p := old.Hash.Partition()
		onlyA, both, own, nobody := p, p^1, p^2, p^3
		set := func(list ...uint16) kv.PartitionSet {
			s := kv.NewPartitionSet(kv.Partitions)
			for _, p := range list {
				s.Add(p)
			}
			return s
		}
		others := p ^ 4 // released, and not begun
		b.Incoming[nobody].Store(&handoff.Source{From: c})
		time.Sleep(time.Second)
		now := b.boot()
		generation := b.store.Generation(both)
		begun := ownership.Begun{
			Ballot: b.ballot(), Partitions: set(onlyA, both, own, nobody), Heads: map[kv.Process]uint64{a: 9},
			Releasers: map[kv.Process]kv.PartitionSet{c: set(both), a: set(onlyA, both, others), b.self: set(own)},
		}
		b.Begin(begun, func(p kv.Process) *cluster.Host { return &cluster.Host{Process: p} })
		if b.has(old) {
			t.Error("an entry from before is there")
		}
		for p := range begun.Partitions.All() {
			is := b.Starts[p].Load()
			if is == nil || is.Heads[a] != 9 || is.At != now || len(is.Behind) != 1 || is.Behind[0].Owner.Process != a {
				t.Errorf("partition %d begins as %+v", p, is)
			}
		}
		src := at(onlyA)
		if src == nil || at(both) != src || at(own) != nil || at(nobody) != nil || at(others) != nil {
			t.Fatalf("the sources are %p %p %p %p %p", src, at(both), at(own), at(nobody), at(others))
		}
		want := map[uint16]uint16{onlyA: b.store.Generation(onlyA), both: generation + 1}
		if src.From != a || src.Ballot != *begun.Ballot || !maps.Equal(src.Generations, want) ||
			!slices.Equal(src.Partitions, set(onlyA, both)) {
			t.Errorf("the source is %+v", src)
		}
		if told := b.told; len(told.begun) != 1 || told.at[0] != now || told.begun[0].Ballot != begun.Ballot {
			t.Errorf("the host is told %+v", told)
		}

		asOf := b.next()
		b.Ended(set(onlyA), asOf)
		if at(onlyA) != nil || at(both) != src {
			t.Errorf("after the end of one ownership the sources are %p and %p", at(onlyA), at(both))
		}
		if !slices.Equal(b.told.ended[asOf], set(onlyA)) {
			t.Errorf("the host is told of the ends %v", b.told.ended)
		}
	})
}

// TestBeginTellsFirst checks that the host is told of an ownership before entries come.
func TestBeginTellsFirst(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		k := a.put("default", "k", "v", 0)
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			if len(b.told.begun) != 1 || b.BegunAt(k.Hash.Partition()) == 0 {
				t.Error("entries are asked for before the ownership has begun")
			}
			return a.ServePull(from, q)
		}
		move(a, b, k)
		if !b.has(k) {
			t.Error("the entry has not come")
		}
	})
}

// TestTwoSources checks that each source gives the partitions that it is for, and nothing
// else that it has: the other host may have stopped later.
func TestTwoSources(t *testing.T) {
	between(t, "abc", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		ofA, ofC := a.put("default", "of a", "new", 0), c.put("default", "of c", "new", 0)
		a.put("default", "of c", "old", 0)
		c.put("default", "of a", "old", 0)
		ballot, set := b.ballot(), partitions(ofA, ofC)
		a.release(ballot, set)
		c.release(ballot, set)
		everything := func(h *host) func(kv.Process, *wire.Pull) wire.Reply {
			return func(from kv.Process, q *wire.Pull) wire.Reply {
				if got, want := kv.PartitionsOf(q.Partitions).Len(), 1; got != want {
					t.Errorf("%d partitions are asked for, want %d", got, want)
				}
				q.Partitions = nil
				return h.ServePull(from, q)
			}
		}
		a.pull, c.pull = everything(a), everything(c)
		b.Begin(ownership.Begun{Ballot: ballot, Partitions: set, Releasers: map[kv.Process]kv.PartitionSet{
			a.self: partitions(ofA), c.self: partitions(ofC),
		}}, nil)
		b.pulled()
		for _, k := range []kv.Key{ofA, ofC} {
			if v, _, ok := b.store.Get(nil, k, segment.NoLimit, b.boot()); string(v) != "new" {
				t.Errorf("%s is %q, %v", k.Bytes, v, ok)
			}
		}
		if n := b.Counts.Refused.Load(); n != 2 {
			t.Errorf("%d entries were refused, want 2", n)
		}
	})
}

// TestPullIsPaced checks that a pull rests for half as long as its batches take, and for twice as long beside
// another pull: together they take two thirds of the time. No rest is longer than half of the bound, after which
// the sender would drop what it offers.
func TestPullIsPaced(t *testing.T) {
	const trip, slow, batches = 20 * time.Millisecond, 900 * time.Millisecond, 18
	for _, tc := range []struct {
		sources int
		takes   time.Duration // a batch, at its sender
		every   time.Duration
	}{
		{1, 0, trip * 3 / 2}, {2, 0, trip * 3}, {2, slow, trip + slow + cluster.DefaultBound/2},
	} {
		sources, want := tc.sources, tc.every
		between(t, "abc", func(t *testing.T, lan *simnet.Net, hosts []*host) {
			lan.SetDelay(trip/2, trip/2)
			b := hosts[1]
			begun := ownership.Begun{Ballot: b.ballot(), Releasers: map[kv.Process]kv.PartitionSet{}}
			var asked [2][]time.Time
			var keys []kv.Key
			for i, from := range []*host{hosts[0], hosts[2]}[:sources] {
				k := from.put("default", string(from.self.Node), "v", 0)
				keys = append(keys, k)
				from.pull = func(_ kv.Process, q *wire.Pull) wire.Reply {
					asked[i] = append(asked[i], time.Now())
					time.Sleep(tc.takes)
					if q.Batch == batches {
						return wire.BodyReply(wire.Pulled{Done: true})
					}
					e := wire.Entry{Namespace: "default", Key: k.Bytes, Value: []byte("v"), Version: 1}
					return wire.BodyReply(wire.Pulled{Entries: []wire.Entry{e}})
				}
				from.release(begun.Ballot, partitions(k))
				begun.Releasers[from.self] = partitions(k)
			}
			begun.Partitions = partitions(keys...)
			b.Begin(begun, nil)
			b.pulled()
			for i := range sources {
				if len(asked[i]) != batches+1 {
					t.Fatalf("%d batches were asked for", len(asked[i]))
				}
				for n := 2; n < batches; n++ { // the first may be alone, and the last
					if gap := asked[i][n].Sub(asked[i][n-1]); gap != want {
						t.Errorf("%+v: batch %d of source %d after %v, want %v", tc, n, i, gap, want)
					}
				}
			}
		})
	}
}

// TestPullEndsWithTheEnd checks that a pull goes on after an empty batch, and after a last
// one with entries: only the request behind it tells the sender that they have arrived.
func TestPullEndsWithTheEnd(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		k := a.put("default", "k", "v", 0)
		e := wire.Entry{Namespace: "default", Key: k.Bytes, Value: []byte("v"), Version: 1}
		answers := []wire.Pulled{{}, {Entries: []wire.Entry{e}, Done: true}, {Done: true}}
		asked := 0
		a.pull = func(_ kv.Process, q *wire.Pull) wire.Reply {
			if asked++; q.Batch != uint64(asked-1) || asked > len(answers) {
				t.Errorf("batch %d is asked for in request %d", q.Batch, asked)
			}
			some := answers[min(q.Batch, 2)]
			some.AsOf = uint64(a.next())
			return wire.BodyReply(some)
		}
		move(a, b, k)
		if asked != len(answers) || !b.has(k) || b.Counts.Failed.Load() != 0 {
			t.Errorf("%d batches were asked for, there %v, %+v", asked, b.has(k), b.Stats())
		}
	})
}

// TestEndOf checks where the edges of a TTL lie: it counts from the request, 2 % and a
// millisecond early, and ends after the request in any case.
func TestEndOf(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		clock := &clock{begun: time.Now()}
		asked := clock.Read().Boot
		time.Sleep(time.Minute)             // the answer took as long
		const year = 365 * 24 * 3600 * 1000 // milliseconds
		for _, tc := range []struct {
			name string
			ttl  int64
			want time.Duration
		}{
			{"no end", 0, 0},
			{"negative", -1, 0},
			{"least", math.MinInt64, 0},
			{"less than a millisecond may be left", 1, asked + 1},
			{"two", 2, asked + 980*time.Microsecond},
			{"a second and one", 1001, asked + 980*time.Millisecond},
			{"an hour", time.Hour.Milliseconds(), asked + (time.Hour-time.Millisecond)*98/100},
			{"ten years", 10 * year, asked + (10*year-1)*time.Millisecond/100*98},
			{"more than a deadline", math.MaxInt64, asked + time.Duration(kv.MaxDeadline)*time.Millisecond/100*98},
		} {
			got := handoff.EndOf(clock, tc.ttl, asked)
			if got != tc.want {
				t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
			}
		}
	})
}

// TestSlowAnswer checks that the time that an answer takes is no part of an entry's life.
func TestSlowAnswer(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		pulled := a.put("default", "pulled", "v", 10*time.Second)
		fetched := a.put("default", "fetched", "v", 10*time.Second)
		slow := func(r wire.Reply) wire.Reply {
			time.Sleep(900 * time.Millisecond)
			return r
		}
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply { return slow(a.ServePull(from, q)) }
		a.fetch = func(from kv.Process, q *wire.Fetch) wire.Reply { return slow(a.ServeFetch(from, q)) }
		end, _ := a.store.Peek(pulled, a.boot())
		ballot, set := b.ballot(), partitions(pulled, fetched)
		a.release(ballot, set)
		b.begin(ballot, a, set)
		src := b.Incoming[fetched.Hash.Partition()].Load()
		if err := b.FetchNow(context.Background(), src, namespaces.Default, fetched); err != nil {
			t.Error(err)
		}
		b.pulled()
		for _, k := range []kv.Key{pulled, fetched} {
			if info, ok := b.store.Peek(k, b.boot()); !ok || info.Deadline > end.Deadline {
				t.Errorf("%s ends %d ms later than at its last owner, %v", k.Bytes, info.Deadline-end.Deadline, ok)
			}
		}
	})
}

// TestRunWaits checks that Run returns after the pulls and fetches that it has let begin,
// wherever they are.
func TestRunWaits(t *testing.T) {
	for _, what := range []string{"pull", "fetch"} {
		t.Run(what, func(t *testing.T) {
			between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
				a, b := hosts[0], hosts[1]
				k := a.put("default", "k", "v", 0)
				ballot, set := b.ballot(), partitions(k)
				a.release(ballot, set)
				busy, goOn, stopped := make(chan struct{}), make(chan struct{}), make(chan struct{})
				stop := func() { close(busy); <-goOn }
				if what == "pull" {
					a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
						b.clock.then.Store(&stop) // which is read when the entry is stored
						return a.ServePull(from, q)
					}
					b.begin(ballot, a, set)
				} else {
					src := b.from(ballot, a, set)
					b.clock.then.Store(&stop)
					go func() { // ends with Run
						_ = b.Fetch(context.Background(), src, namespaces.Default, k, time.Second)
					}()
				}
				<-busy
				go func() { // ends with goOn
					defer close(stopped)
					b.stop()
				}()
				synctest.Wait()
				select {
				case <-stopped:
					t.Errorf("Run returns while a %s is under way", what)
				default:
				}
				close(goOn)
				<-stopped
				if n := b.Counts.Pulling.Load(); n != 0 {
					t.Errorf("%d pulls are under way after Run", n)
				}
			})
		})
	}
}

// TestRunEnds checks that pulls and fetches that wait for the other host end with Run, and
// that none begins before or after it. Offers end with it too.
func TestRunEnds(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		k, other := a.put("default", "k", "v", 0), b.put("default", "other", "v", 0)
		ballot, set := b.ballot(), partitions(k)
		a.release(ballot, set)
		b.release(a.ballot(), partitions(other))
		var asked atomic.Int64
		end := make(chan struct{})
		a.pull = func(kv.Process, *wire.Pull) wire.Reply { asked.Add(1); <-end; return wire.Reply{} }
		a.fetch = func(kv.Process, *wire.Fetch) wire.Reply { asked.Add(1); <-end; return wire.Reply{} }
		b.begin(ballot, a, set)
		src := b.Incoming[k.Hash.Partition()].Load()
		fetch := func() error { return b.Fetch(context.Background(), src, namespaces.Default, k, time.Second) }
		fetched := make(chan error, 1)
		go func() { fetched <- fetch() }() // ends with Run
		time.Sleep(10 * time.Millisecond)

		began := time.Now()
		b.stop()
		if took := time.Since(began); took != 0 || asked.Load() != 2 {
			t.Errorf("Run took %v to end; %d requests were under way, want 2", took, asked.Load())
		}
		if err := <-fetched; !errors.Is(err, context.Canceled) {
			t.Errorf("a fetch under way ends with %v", err)
		}
		if b.waits(k) || b.Counts.Failed.Load() != 0 {
			t.Errorf("after Run entries are awaited: %v; %+v", b.waits(k), b.Stats())
		}
		if b.OpenOffers() != 0 || b.has(other) {
			t.Errorf("after Run %d offers are left, with entries: %v", b.OpenOffers(), b.has(other))
		}
		b.begin(ballot, a, set)
		if err := fetch(); err == nil || err.Error() != "this sidecar is stopping" {
			t.Errorf("a fetch after Run: %v", err)
		}
		time.Sleep(5 * time.Second)
		if n := asked.Load(); n != 2 {
			t.Errorf("%d requests after Run", n-2)
		}
		close(end)
	})
}
