package handoff_test

import (
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// between two processes of host b, host a owns everything.
type keptBetween struct {
	a      *host
	before kv.Process // of host b: it keeps its entries
	b      *asker     // the next process of host b
	ballot *kv.Ballot
	begun  ownership.Begun
	kept   []wire.Kept // what b asks about
}

// event puts an event into the log of host a.
func (k *keptBetween) event(kind invalidation.Kind, copiesOnly bool, set kv.PartitionSet) {
	k.a.events.Append(invalidation.Event{
		Kind: kind, Version: k.a.next(), Detail: &invalidation.Detail{Partitions: set, CopiesOnly: copiesOnly},
	})
}

// handed stores an entry as if it had come from the process before.
func (k *keptBetween) handed(name string) kv.Key {
	k.a.t.Helper()
	key := k.a.key("default", name)
	e := kv.Entry{Key: key, Value: []byte("v"), Facts: kv.Facts{Version: k.begun.Ballot.Clock - 1}}
	if r := k.a.store.Restore(e, k.a.store.Generation(key.Hash.Partition()), 3, func() bool { return true }, k.a.clock.Read()); r != 0 {
		k.a.t.Fatalf("%s: %d", name, r)
	}
	return key
}

// TestBase checks of which partitions a host says that only it has owned them since another one kept their
// entries, which keys have changed there, and which entries it does not send.
func TestBase(t *testing.T) {
	half := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions / 2) {
		half.Add(p)
	}
	type on = *keptBetween
	for _, tc := range []struct {
		name           string
		before, during func(k on)
		after          func(k on)
		base           int // partitions
		changed        string
		sent           string
	}{
		{"nothing changed", nil, nil, nil, kv.Partitions, "", "own"},
		{"a change", nil, func(k on) { k.a.put("default", "put", "v", 0) }, nil, kv.Partitions, "put", "own put"},
		{"a deletion", nil, func(k on) { k.a.store.Delete(k.a.key("default", "handed"), k.a.clock.Read()) }, nil, kv.Partitions, "handed", "own"},
		{"a touch", nil, func(k on) { k.a.store.Touch(k.a.key("default", "handed"), 0, 0, k.a.clock.Read()) }, nil, kv.Partitions, "handed", "handed own"},
		{"a filled absence", nil, func(k on) { k.a.absent("absent", time.Minute) }, nil, kv.Partitions, "absent", "absent own"},
		{"a change before", func(k on) { k.a.put("default", "put", "v", 0) }, nil, nil, kv.Partitions, "", "own"},
		{"a change after", nil, nil, func(k on) { k.a.store.Delete(k.a.key("default", "handed"), k.a.clock.Read()) }, kv.Partitions, "", "own"},
		{"another ballot", nil, nil, func(k on) { k.kept[0].Ballot.Clock++ }, 0, "", "handed own"},
		{"of another host", func(k on) { k.before.Node = "c" }, nil, nil, 0, "", "handed own"},
		{"a host that does not keep", func(k on) { k.begun.Keepers = nil }, nil, nil, 0, "", "handed own"},
		{"two releasers", func(k on) { k.begun.Releasers[kv.Process{Node: "c", Epoch: 1}] = half }, nil, nil, kv.Partitions / 2, "", "handed own"},
		{"too long", nil, func(on) { time.Sleep(keepFor) }, nil, 0, "", "handed own"},
		{"just in time", nil, func(on) { time.Sleep(keepFor - time.Millisecond) }, nil, kv.Partitions, "", "own"},
		{"lost", nil, func(k on) { k.event(invalidation.FloorRaised, false, half) }, nil, kv.Partitions / 2, "", "handed own"},
		{"lost by a reset", nil, func(k on) {
			for p := range uint16(kv.Partitions) {
				k.a.store.NewOwnership(p)
			}
		}, nil, 0, "", ""},
		{"lost copies", nil, func(k on) { k.event(invalidation.FloorRaised, true, half) }, nil, kv.Partitions, "", "own"},
		{"lost before", func(k on) { k.event(invalidation.FloorRaised, false, half) }, nil, nil, kv.Partitions, "", "own"},
		{"lost after", nil, nil, func(k on) { k.event(invalidation.FloorRaised, false, half) }, kv.Partitions, "", "own"},
		{"a log that is full", nil, func(k on) {
			for range logEvents - 1 { // and that of the key "own"
				k.event(invalidation.FloorRaised, true, half)
			}
		}, nil, kv.Partitions, "", "own"},
		{"a log that is too short", nil, func(k on) {
			for range logEvents {
				k.event(invalidation.FloorRaised, true, half)
			}
		}, nil, 0, "", "handed own"},
		{"part of them", nil, nil, func(k on) { k.kept[0].Partitions = half.Bytes() }, kv.Partitions / 2, "", "handed own"},
		{"more than there are", nil, nil, func(k on) { k.kept = append(k.kept, k.kept...) }, 0, "", "handed own"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				a := newHost(t, "a", soft)
				k := &keptBetween{a: a, before: kv.Process{Node: "b", Epoch: 7}, b: a.asker("b"), ballot: a.ballot()}
				k.begun = ownership.Begun{Ballot: k.ballot, Partitions: all(), Keepers: map[kv.Process]bool{}}
				k.begun.Releasers = map[kv.Process]kv.PartitionSet{}
				k.kept = []wire.Kept{{Ballot: *k.ballot, Partitions: all().Bytes()}}
				if tc.before != nil {
					tc.before(k)
				}
				if k.begun.Keepers != nil {
					k.begun.Keepers[k.before] = true
				}
				k.begun.Releasers[k.before] = all()
				a.Begin(k.begun, nil)
				k.handed("handed")
				own := a.put("default", "own", "v", 0)
				if tc.during != nil {
					tc.during(k)
				}
				a.release(k.b.ballot, all())
				if tc.after != nil {
					tc.after(k)
				}
				ask := func(batch uint64) wire.Pulled {
					return decoded[wire.Pulled](t, a.ServePull(k.b.self, &wire.Pull{Ballot: *k.b.ballot, Batch: batch, Kept: k.kept}))
				}
				first := ask(0)
				again := ask(0)
				if !slices.Equal(first.Base, again.Base) || len(first.Changed) != len(again.Changed) {
					t.Error("the base is told once only")
				}
				var changed []string
				for b := first.Changed; len(b) > 0; b = b[8:] {
					hash := kv.Hash(binary.LittleEndian.Uint64(b))
					for _, name := range []string{"put", "handed", "absent"} {
						if a.key("default", name).Hash == hash {
							changed = append(changed, name)
						}
					}
					if hash == own.Hash {
						changed = append(changed, "own")
					}
				}
				slices.Sort(changed)
				want := strings.Fields(tc.changed)
				if tc.base > 0 {
					want = append(want, "own")
					slices.Sort(want)
				}
				if n := kv.PartitionsOf(first.Base).Len(); n != tc.base {
					t.Errorf("the base has %d partitions, want %d", n, tc.base)
				}
				if tc.base == kv.Partitions && !slices.Equal(changed, want) {
					t.Errorf("changed: %v, want %v", changed, want)
				}
				if got := names(first); tc.base%kv.Partitions == 0 && !slices.Equal(got, strings.Fields(tc.sent)) {
					t.Errorf("it sends %v, want %v", got, tc.sent)
				}
				if last := ask(1); last.Base != nil || last.Changed != nil {
					t.Error("a later batch has the base too")
				}
			})
		})
	}
}

// TestKeepsAtTheEnd checks what a host hands over that ends and keeps its entries, how long it waits for that,
// and what it leaves to its next process.
func TestKeepsAtTheEnd(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		half, rest, none := kv.NewPartitionSet(kv.Partitions), all(), kv.NewPartitionSet(kv.Partitions)
		early := a.put("default", "early", "v", 0)
		half.Add(early.Hash.Partition())
		rest.Remove(early.Hash.Partition())
		keys := []kv.Key{early}
		for hits, name := range []string{"cold", "once", "twice", "hot"} {
			k := a.put("default", name, "v", 0)
			if keys = append(keys, k); half.Has(k.Hash.Partition()) {
				t.Fatal("two keys share a partition")
			}
			for range hits {
				a.store.Get(nil, k, 1, a.boot())
			}
		}
		lost := a.put("default", "lost", "v", 0)
		none.Add(lost.Hash.Partition())
		rest.Remove(lost.Hash.Partition())
		a.run()
		a.release(b.ballot, half) // the ring changes
		a.Exiting()
		if a.KeepsEntries() {
			t.Error("it keeps what nothing holds")
		}
		a.SetKeepsMemory()
		a.Exiting()
		a.Ended(none, a.next()) // to no host
		later := a.asker("c")
		a.release(later.ballot, rest)
		if got := names(b.all(nil, 0)...); !slices.Equal(got, []string{"early"}) {
			t.Errorf("before its end it hands over %v", got)
		}
		if got := names(later.all(nil, 0)[:1]...); !slices.Equal(got, []string{"cold", "hot", "once", "twice"}) {
			t.Errorf("it hands over %v", got)
		}
		if f := later.fetch("default", "cold"); !f.Found {
			t.Error("an entry that it is asked for does not come")
		}
		a.Offer(later.self, later.ballot, rest) // it asks again
		if list := a.KeptForNext(); len(list) != 1 {
			t.Errorf("it leaves %d sets of partitions", len(list))
		}
		time.Sleep(30 * time.Second) // offers are dropped, and their entries are not
		if a.has(early) {
			t.Error("what was released before the end is kept")
		}
		for _, k := range keys[1:] {
			if !a.has(k) {
				t.Errorf("%s is not kept", k.Bytes)
			}
		}
		list := a.KeptForNext()
		if len(list) != 1 || list[0].Ballot != *later.ballot || !slices.Equal(kv.PartitionsOf(list[0].Partitions), rest) {
			t.Errorf("it leaves %d sets of partitions", len(list))
		}
	})
}

// TestAwaitedAtTheEnd checks that a host which keeps its entries waits a second for its offers.
func TestAwaitedAtTheEnd(t *testing.T) {
	for _, keeps := range []bool{true, false} {
		offering(t, func(t *testing.T, a *host, b *asker) {
			a.put("default", "k", "v", 0)
			if keeps {
				a.SetKeepsMemory()
				a.Exiting()
			}
			time.Sleep(time.Minute)
			a.release(b.ballot, all())
			time.Sleep(time.Second - time.Millisecond)
			if !a.Awaited() {
				t.Error("it does not wait")
			}
			time.Sleep(time.Millisecond)
			if a.Awaited() == keeps {
				t.Errorf("keeps %v: it waits for more than a second: %v", keeps, a.Awaited())
			}
		})
	}
}

// TestKeptIsDecided checks that each partition of which entries were kept is decided on: once its ownership
// begins without a source, once its source has failed, or after the time.
func TestKeptIsDecided(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		one := func(p uint16) kv.PartitionSet {
			set := kv.NewPartitionSet(kv.Partitions)
			set.Add(p)
			return set
		}
		ballot := a.ballot()
		four := kv.PartitionsOf([]byte{0b11110})
		b.Recover([]wire.Kept{{Ballot: *ballot, Partitions: four.Bytes()}})
		waiting := func(want int) {
			t.Helper()
			if s := b.KeptStats(); s.Waiting != want || s.Partitions != 4 || s.Again != 0 {
				t.Errorf("%+v, want %d to wait", s, want)
			}
		}
		waiting(4)
		b.Begin(ownership.Begun{Ballot: b.ballot(), Partitions: one(1)}, nil)
		waiting(3)
		b.begin(b.ballot(), a, one(2)) // nothing is offered: the answer has no base
		b.pulled()
		waiting(2)
		a.kill()
		b.begin(b.ballot(), a, one(4))
		b.pulled()
		waiting(1)
		time.Sleep(keepFor - time.Second)
		waiting(1)
		time.Sleep(2 * time.Second)
		waiting(0)
		if !strings.Contains(b.log.String(), "kept entries are served again") {
			t.Errorf("the log is\n%s", b.log)
		}
	})
}

// TestNothingIsAbsentBeforeTheBase checks that a host which asks for an entry waits until it knows what it
// serves again: it may have the entry.
func TestNothingIsAbsentBeforeTheBase(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		key := b.key("default", "k")
		told := make(chan struct{})
		a.pull = func(from kv.Process, q *wire.Pull) wire.Reply {
			<-told
			return a.ServePull(from, q)
		}
		b.Recover([]wire.Kept{{Ballot: *a.ballot(), Partitions: partitions(key).Bytes()}})
		b.begin(b.ballot(), a, partitions(key))
		src := b.Incoming[key.Hash.Partition()].Load()
		if err := b.Fetch(t.Context(), src, "default", key, 100*time.Millisecond); err == nil {
			t.Error("an entry is absent although it is not known whether it was kept")
		}
		close(told)
		if err := b.Fetch(t.Context(), src, "default", key, 10*time.Second); err != nil {
			t.Error(err)
		}
		b.pulled()
	})
}

// TestKeeperIsGone checks that a host which keeps its entries is asked once more only: it does not wait.
func TestKeeperIsGone(t *testing.T) {
	between(t, "ab", func(t *testing.T, _ *simnet.Net, hosts []*host) {
		a, b := hosts[0], hosts[1]
		a.kill()
		took := func(keeps bool) time.Duration {
			began := time.Now()
			b.Begin(ownership.Begun{
				Ballot: b.ballot(), Partitions: all(), Releasers: map[kv.Process]kv.PartitionSet{a.self: all()},
				Keepers: map[kv.Process]bool{a.self: keeps},
			}, nil)
			b.pulled()
			return time.Since(began)
		}
		others, keeper := took(false), took(true)
		if keeper > others/4 || b.Counts.Failed.Load() != 1 {
			t.Errorf("a keeper is given up after %v, others after %v; %d count as failed", keeper, others, b.Counts.Failed.Load())
		}
	})
}
