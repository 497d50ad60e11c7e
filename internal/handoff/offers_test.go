package handoff_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	nsorigin "github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// offering runs a test with a host that offers entries. Another host asks for them by
// hand.
func offering(t *testing.T, f func(t *testing.T, a *host, b *asker)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		offeringWith(t, soft, f)
	})
}

// offeringWith is offering with the settings of the default namespace, within a bubble.
func offeringWith(t *testing.T, s namespaces.Settings, f func(t *testing.T, a *host, b *asker)) {
	a := newHost(t, "a", s)
	t.Cleanup(func() { // the end of Run ends the offers
		if a.stop == nil {
			a.run()
		}
		a.stop()
	})
	f(t, a, a.asker("b"))
}

// asker is a process that has released partitions offered to one of its ballots.
type asker struct {
	of     *host
	self   kv.Process
	ballot *kv.Ballot
}

// asker returns a process with a new ballot.
func (h *host) asker(name string) *asker {
	id := kv.Process{Node: kv.NodeID(name), Epoch: 1}
	return &asker{of: h, self: id, ballot: &kv.Ballot{Clock: h.next(), Process: id}}
}

// request asks for a batch of some partitions; nil is all.
func (a *asker) request(set kv.PartitionSet, batch uint64) wire.Reply {
	return a.of.ServePull(a.self, &wire.Pull{
		Ballot: *a.ballot, Batch: batch, Partitions: set.Bytes(),
	})
}

func (a *asker) batch(set kv.PartitionSet, batch uint64) wire.Pulled {
	a.of.t.Helper()
	return decoded[wire.Pulled](a.of.t, a.request(set, batch))
}

// all asks for all batches of some partitions, from one on.
func (a *asker) all(set kv.PartitionSet, from uint64) (list []wire.Pulled) {
	a.of.t.Helper()
	for {
		b := a.batch(set, from+uint64(len(list)))
		if b.Done && len(b.Entries) == 0 {
			return list
		}
		list = append(list, b)
	}
}

// names returns the keys of some batches, in order.
func names(list ...wire.Pulled) (names []string) {
	for _, b := range list {
		for _, e := range b.Entries {
			names = append(names, string(e.Key))
		}
	}
	slices.Sort(names)
	return names
}

func (a *asker) fetch(namespace, name string) wire.Fetched {
	a.of.t.Helper()
	return decoded[wire.Fetched](a.of.t, a.of.ServeFetch(a.self, &wire.Fetch{
		Ballot: *a.ballot, Namespace: namespace, Key: []byte(name),
	}))
}

// TestBatchesAreBounded checks that a batch ends with the entry that brings it to 256 KiB,
// and that all entries are sent, each once.
func TestBatchesAreBounded(t *testing.T) {
	for _, tc := range []struct {
		name  string
		size  int // of a key and its value
		n     int
		sizes []int // of the batches, in entries
	}{
		{"exactly 256 KiB", 32 << 10, 20, []int{8, 8, 4}},
		{"a little more", 30 << 10, 20, []int{9, 9, 2}},
		{"an entry for each", 300 << 10, 3, []int{1, 1, 1}},
		{"the end at the bound", 32 << 10, 16, []int{8, 8}},
		{"small entries", 1 << 10, 300, []int{256, 44}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			offering(t, func(t *testing.T, a *host, b *asker) {
				var want []string
				for i := range tc.n {
					name := fmt.Sprint("key", i)
					want = append(want, name)
					a.put("default", name, strings.Repeat("v", tc.size-len(name)), 0)
				}
				slices.Sort(want)
				asOf := a.release(b.ballot, all())
				list := b.all(nil, 0)
				var sizes []int
				for i, some := range list {
					sizes = append(sizes, len(some.Entries))
					if kv.Version(some.AsOf) != asOf || some.Done && i < len(list)-1 {
						t.Errorf("batch %d is as of %d, done: %v", i, some.AsOf, some.Done)
					}
				}
				if !slices.Equal(sizes, tc.sizes) || !slices.Equal(names(list...), want) {
					t.Errorf("the batches have %v entries, want %v; %v", sizes, tc.sizes, names(list...))
				}
				if n := a.Counts.Sent.Load(); n != int64(tc.n) {
					t.Errorf("it counts %d entries that went, want %d", n, tc.n)
				}
			})
		})
	}
}

// TestBatchNumbers checks that the last batch is sent again if it is asked for again, and
// that no other batch is.
func TestBatchNumbers(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		for i := range 20 {
			a.put("default", fmt.Sprint("key", i), strings.Repeat("v", 32<<10), 0)
		}
		a.release(b.ballot, all())
		ask := func(batch uint64, want wire.Status) (list []string) {
			t.Helper()
			r := b.request(nil, batch)
			if r.Status != want {
				t.Fatalf("batch %d: %s %s, want %s", batch, r.Status, r.Message, want)
			}
			if want == wire.OK {
				return names(decoded[wire.Pulled](t, r))
			}
			return nil
		}
		ask(1, wire.BadRequest)
		first := ask(0, wire.OK)
		if again := ask(0, wire.OK); !slices.Equal(first, again) || len(first) == 0 {
			t.Errorf("asked for again: %v, before %v", again, first)
		}
		ask(2, wire.BadRequest)
		if second := ask(1, wire.OK); len(second) == 0 || slices.Contains(second, first[0]) {
			t.Errorf("the next batch has %v", second)
		}
		ask(0, wire.BadRequest)
		if r := b.request(nil, 0); string(r.Message) != "batch 0: the next is 2" {
			t.Errorf("a batch before the last: %s", r.Message)
		}
	})
}

// TestPullIsOfASet checks that a pull is found by the set of its partitions, however the
// request writes the set: an offer keeps nothing that a request could make long.
func TestPullIsOfASet(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		keys := a.batches()
		a.release(b.ballot, partitions(keys...))
		set := partitions(keys...).Bytes()
		beyond := append(slices.Concat(set, make([]byte, kv.Partitions/8-len(set))), 0xff)
		seen := map[string]bool{}
		for i, written := range [][]byte{set, beyond, append(slices.Clone(set), 0), nil} {
			q := &wire.Pull{Ballot: *b.ballot, Batch: uint64(i), Partitions: written}
			r := a.ServePull(b.self, q)
			if i == 3 { // all is another set
				if r.Status != wire.BadRequest {
					t.Errorf("a pull of all goes on where another has been: %s", r.Status)
				}
				continue
			}
			for _, name := range names(decoded[wire.Pulled](t, r)) {
				if seen[name] {
					t.Errorf("request %d brings %s again", i, name)
				}
				seen[name] = true
			}
		}
		if len(seen) != len(keys) || a.OpenOffers() != 0 {
			t.Errorf("%d entries of %d have come; offering %d", len(seen), len(keys), a.OpenOffers())
		}
	})
}

// A batch whose answer is lost is asked for again, seconds later. The new answer has the
// time that is left of each entry by then, and no expired entries.
func TestBatchIsSentAgainAsItIsThen(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		a.put("default", "short", "v", 5*time.Second)
		a.put("default", "long", "v", 6*time.Second)
		a.put("default", "ever", "v", 0)
		a.release(b.ballot, all())
		if n := len(b.batch(nil, 0).Entries); n != 3 {
			t.Errorf("%d entries are sent, want 3", n)
		}
		time.Sleep(5 * time.Second)
		left := map[string]int64{}
		for _, e := range b.batch(nil, 0).Entries {
			left[string(e.Key)] = e.TTLMS
		}
		if _, ended := left["short"]; ended || len(left) != 2 || left["long"] != 1000 || left["ever"] != 0 {
			t.Errorf("sent again, with the ms that they have left: %v", left)
		}
		if last := b.batch(nil, 1); !last.Done || len(last.Entries) > 0 || a.OpenOffers() > 0 {
			t.Errorf("the end: %+v, offering %d", last, a.OpenOffers())
		}
	})
}

// Partitions that are released to the same ballot later are offered too, with what was
// written until then. A new owner that has begun with some of them pulls those partitions
// first, and the others later.
func TestOfferGrows(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		var keys [2][]kv.Key
		for i := range 20 {
			keys[i%2] = append(keys[i%2], a.put("default", fmt.Sprint("key", i), "first", 0))
		}
		sets := [2]kv.PartitionSet{partitions(keys[0]...), partitions(keys[1]...)}
		both := partitions(slices.Concat(keys[0], keys[1])...)
		var asOf [2]kv.Version
		asOf[0] = a.release(b.ballot, sets[0])
		for _, k := range keys[1] { // still owned
			a.put("default", string(k.Bytes), "second", 0)
		}
		asOf[1] = a.next()
		a.Ended(sets[1], asOf[1])
		a.Offer(b.self, b.ballot, both) // the same ballot has asked again

		for i, value := range []string{"first", "second"} {
			some := b.batch(sets[i], 0)
			if len(some.Entries) != 10 || kv.Version(some.AsOf) != asOf[i] {
				t.Errorf("pull %d: %d entries as of %d, want 10 as of %d", i, len(some.Entries), some.AsOf, asOf[i])
			}
			for _, e := range some.Entries {
				if string(e.Value) != value {
					t.Errorf("%s is %q, want %q", e.Key, e.Value, value)
				}
			}
			if a.OpenOffers() != 1 || !a.Awaited() {
				t.Errorf("pull %d: nothing is offered before it has come to its end", i)
			}
			if rest := b.all(sets[i], 1); len(rest) > 0 {
				t.Errorf("pull %d goes on with %+v", i, rest)
			}
		}
		a.Offer(b.self, b.ballot, both) // and again
		if a.OpenOffers() > 0 || a.Awaited() {
			t.Error("all has been pulled, and is offered")
		}
		// A pull that names no partitions gets all of them, each batch as of one release,
		// the earlier release first.
		list := b.all(nil, 0)
		if len(list) != 2 || kv.Version(list[0].AsOf) != asOf[0] || kv.Version(list[1].AsOf) != asOf[1] ||
			len(list[0].Entries) != 10 || len(list[1].Entries) != 10 {
			t.Errorf("a pull of all: %+v", list)
		}
	})
}

// TestEmptyReleaseIsPassed checks that a batch has entries as long as there are any: what
// was released first had none.
func TestEmptyReleaseIsPassed(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k := a.put("default", "k", "v", 0)
		set := kv.NewPartitionSet(kv.Partitions)
		set.Add(k.Hash.Partition() ^ 1)
		a.release(b.ballot, set)
		a.release(b.ballot, partitions(k))
		if some := b.batch(nil, 0); !slices.Equal(names(some), []string{"k"}) {
			t.Errorf("the first batch: %+v", some)
		}
	})
}

// TestReleasedOnce checks that a partition that is offered twice to one ballot is sent as
// of its first release: later entries are of another ownership.
func TestReleasedOnce(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k := a.put("default", "first", "v", 0)
		set := partitions(k)
		asOf := a.release(b.ballot, set)
		if got := b.fetch("default", "first"); !got.Found || kv.Version(got.AsOf) != asOf {
			t.Errorf("the first ownership: %+v", got)
		}
		a.Begin(ownership.Begun{Ballot: a.ballot(), Partitions: set}, nil)
		a.put("default", "first", "of the second ownership", 0)
		a.release(b.ballot, set)
		if got := b.fetch("default", "first"); got.Found || kv.Version(got.AsOf) != asOf {
			t.Errorf("after the second ownership: %+v", got)
		}
		if some := b.all(nil, 0); len(some) > 0 {
			t.Errorf("after the second ownership: %+v", some)
		}
	})
}

// TestOfferGivesNothingNewer checks that a host that has ended an ownership hands over
// what it could have served then, and nothing that was stored in its place since: neither
// a write that found its ownership ended when it was stored, nor a write of the next
// ownership.
func TestOfferGivesNothingNewer(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		list := []string{"kept", "last", "overwritten", "new"}
		a.put("default", "kept", "v", 0)
		a.put("default", "overwritten", "v", 0)
		last := a.key("default", "last")
		asOf := a.next()
		a.store.Restore(kv.Entry{Key: last, Facts: kv.Facts{Version: asOf}}, a.store.Generation(last.Hash.Partition()), 0,
			func() bool { return true }, a.clock.Read())
		a.Ended(all(), asOf)
		a.Offer(b.self, b.ballot, all())
		a.put("default", "overwritten", "w", 0)
		a.put("default", "new", "w", 0)
		check := func(when string, want ...string) {
			t.Helper()
			var fetched []string
			for _, name := range list {
				f := b.fetch("default", name)
				if f.Found {
					fetched = append(fetched, name)
				}
				if kv.Version(f.AsOf) != asOf {
					t.Errorf("%s: %s is as of %d, want %d", when, name, f.AsOf, asOf)
				}
			}
			// Another set of partitions begins another pull.
			set := all()
			set.Remove(uint16(len(want)))
			if pulled := names(b.all(set, 0)...); !slices.Equal(fetched, want) || !slices.Equal(pulled, want) {
				t.Errorf("%s: %v are fetched, %v are pulled, want %v", when, fetched, pulled, want)
			}
		}
		check("after writes that came too late", "kept", "last")
		a.Begin(ownership.Begun{Ballot: a.ballot(), Partitions: all()}, nil)
		for _, name := range list {
			a.put("default", name, "x", 0)
		}
		check("in the next ownership")
	})
}

// Entries of a namespace that has lost its slot between two batches are not sent to the
// namespace that has the slot now.
func TestSlotOfAnotherBetweenBatches(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		const n = 400
		var keys []kv.Key
		for i := range n {
			keys = append(keys, a.put("before", fmt.Sprint("key", i), strings.Repeat("v", 2<<10), 0))
		}
		a.put("full", "k", "v", 0) // no slot is left
		a.release(b.ballot, all())
		first := b.batch(nil, 0).Entries
		if len(first) == 0 || len(first) == n || first[0].Namespace != "before" {
			t.Fatalf("the first batch has %d entries", len(first))
		}
		for _, k := range keys { // as if they had expired
			a.store.Delete(k, a.clock.Read())
		}
		if after := a.key("after", "k"); after.Namespace != keys[0].Namespace {
			t.Fatal("it has another slot")
		}
		for _, some := range b.all(nil, 1) {
			for _, e := range some.Entries {
				if string(e.Key) != "k" || e.Namespace != "full" {
					t.Errorf("%s of another namespace is sent as %s's", e.Key, e.Namespace)
				}
			}
		}
	})
}

// Entries of a name that has lost its slot are not sent if no other name has the slot.
func TestSlotOfNobodyBetweenBatches(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		var keys []kv.Key
		for i := range 50 {
			keys = append(keys, a.put("before", fmt.Sprint("key", i), "v", 0))
		}
		a.put("full", "k", "v", 0) // no slot is left
		a.release(b.ballot, all())
		sent := 0
		for e := range a.EntriesOf(a.OfferOf(b.self, *b.ballot).Parts(nil)[0]) {
			if e.Key.Namespace != keys[0].Namespace {
				continue
			}
			if sent++; sent > 1 {
				t.Fatalf("%s is sent", e.Key.Bytes)
			}
			for _, k := range keys {
				a.store.Delete(k, a.clock.Read())
			}
			// A new name takes the slot of an empty one, and then may not have it.
			member := quota.NewBudget(0).Open("an app", "")
			_, bad := a.names.Obtain([]byte("after"), member)
			if bad == nil || a.names.InSlot(keys[0].Namespace) != nil {
				t.Fatalf("the slot is still taken; %v", bad)
			}
		}
		if sent != 1 {
			t.Errorf("%d entries were sent before, want 1", sent)
		}
	})
}

// TestGivenStops checks that no entry is looked for once the reader wants no more.
func TestGivenStops(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		hot := a.put("default", "hot", "v", 0)
		a.put("default", "cold", "v", 0)
		a.store.Get(nil, hot, segment.NoLimit, a.boot())
		a.release(b.ballot, all())
		for range a.EntriesOf(a.OfferOf(b.self, *b.ballot).Parts(nil)[0]) {
			break // going on would panic
		}
	})
}

// TestOfferIsForOneBallot checks that no other host gets anything of an offer: another
// process, an earlier process of the same name, or another ballot of the same process.
func TestOfferIsForOneBallot(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k, other := a.put("default", "k", "v", 0), a.put("default", "other", "v", 0)
		a.release(b.ballot, partitions(k))
		another, earlier, renamed := *b, *b, *b
		another.ballot = &kv.Ballot{Clock: a.next(), Process: b.self}
		earlier.self.Epoch--
		renamed.self.Node = "c"
		for name, ask := range map[string]*asker{
			"another ballot": &another, "an earlier process": &earlier, "another process": &renamed,
		} {
			some, one := ask.batch(nil, 0), ask.fetch("default", "k")
			if !some.Done || len(some.Entries) > 0 || some.AsOf != 0 || one.Found || one.AsOf != 0 {
				t.Errorf("%s gets %+v and %+v", name, some, one)
			}
		}
		if one := b.fetch("default", "other"); one.Found || one.AsOf != 0 {
			t.Errorf("what was not released is sent: %+v", one)
		}
		if got := names(b.all(partitions(other), 0)...); len(got) > 0 {
			t.Errorf("what was not released is sent: %v", got)
		}
		if n := a.Counts.Sent.Load(); n != 0 {
			t.Errorf("%d entries are counted that went", n)
		}
		if a.OpenOffers() != 1 {
			t.Errorf("%d offers are left after requests of others, want 1", a.OpenOffers())
		}
		if got := names(b.all(nil, 0)...); !slices.Equal(got, []string{"k"}) {
			t.Errorf("the ballot gets %v", got)
		}
	})
}

// TestFetchedEntry checks what the answer to FETCH has.
func TestFetchedEntry(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k := a.write("other", "k", segment.Write{
			Value: []byte("v"), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 9}, Deadline: kv.After(a.boot(), time.Hour)},
		})
		a.absent("absent", time.Minute)
		soft := a.put("default", "soft", "v", 0)
		a.store.Soften(soft, a.clock.Read())
		asOf := uint64(a.release(b.ballot, all()))
		info, _ := a.store.Peek(k, a.boot())
		got := b.fetch("other", "k")
		if e := got.Entry; !got.Found || got.AsOf != asOf || e.Namespace != "other" || string(e.Key) != "k" ||
			string(e.Value) != "v" || e.Flags != 9 || e.Version != uint64(info.Version) ||
			e.TTLMS != time.Hour.Milliseconds() || e.Absent {
			t.Errorf("a value: %+v", got)
		}
		got = b.fetch(namespaces.Default, "absent")
		if e := got.Entry; !got.Found || !e.Absent || len(e.Value) > 0 || e.Version == 0 ||
			e.TTLMS != time.Minute.Milliseconds() {
			t.Errorf("a negative entry: %+v", got)
		}
		for _, name := range []string{"soft", "k"} {
			if got := b.fetch(namespaces.Default, name); got.Found || got.AsOf != asOf {
				t.Errorf("%s: %+v, want nothing", name, got)
			}
		}
		if got := b.fetch("unknown", "k"); got.Found || got.AsOf != 0 || a.names.Lookup([]byte("unknown")) != nil {
			t.Errorf("of an unknown name: %+v, and it has a slot: %v", got, a.names.Lookup([]byte("unknown")))
		}
		if n := a.Counts.Sent.Load(); n != 2 {
			t.Errorf("%d entries are counted that went, want 2", n)
		}
	})
}

// TestFetchLeavesNoPin checks that a name that was asked for can lose its slot afterwards.
func TestFetchLeavesNoPin(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k := a.put("one", "k", "v", 0)
		a.put("full", "k", "v", 0)
		a.release(b.ballot, all())
		if !b.fetch("one", "k").Found {
			t.Error("it is not found")
		}
		a.store.Delete(k, a.clock.Read())
		a.key("two", "k") // fails if "one" keeps its slot
	})
}

// TestOffersAreBounded checks that a host keeps 4,096 offers, and that these go on growing
// when a further one is refused.
func TestOffersAreBounded(t *testing.T) {
	offering(t, func(t *testing.T, a *host, first *asker) {
		k, later := a.put("default", "k", "v", 0), a.put("default", "later", "v", 0)
		var askers []*asker
		for i := range 4097 {
			b := first
			if i > 0 {
				b = a.asker("b")
			}
			askers = append(askers, b)
			a.release(b.ballot, partitions(k))
		}
		if n := a.OpenOffers(); n != 4096 {
			t.Errorf("%d offers, want 4096", n)
		}
		last, over := askers[4095], askers[4096]
		if got := names(last.all(nil, 0)...); !slices.Equal(got, []string{"k"}) {
			t.Errorf("the last offer gives %v", got)
		}
		if got := over.batch(nil, 0); !got.Done || len(got.Entries) > 0 {
			t.Errorf("one too many gives %+v", got)
		}
		a.release(first.ballot, partitions(later))
		if got := names(first.all(nil, 0)...); !slices.Equal(got, []string{"k", "later"}) {
			t.Errorf("the first offer, grown, gives %v", got)
		}
	})
}

// TestPullsAreBounded checks that an offer has 64 pulls, each of a set of partitions, and
// that these go on when a further one gets BUSY.
func TestPullsAreBounded(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		k := a.put("default", "k", "v", 0)
		a.release(b.ballot, all())
		sets := []kv.PartitionSet{partitions(k)}
		for p := uint16(0); len(sets) < 65; p++ {
			if p != k.Hash.Partition() {
				set := kv.NewPartitionSet(kv.Partitions)
				set.Add(p)
				sets = append(sets, set)
			}
		}
		for i, set := range sets {
			r := b.request(set, 0)
			if want := i == 64; r.Status == wire.Busy != want || want && string(r.Message) != "64 pulls of one offer" {
				t.Errorf("pull %d: %s %s", i, r.Status, r.Message)
			}
		}
		if some := b.batch(sets[0], 1); !some.Done || len(some.Entries) > 0 {
			t.Errorf("the first pull goes on with %+v", some)
		}
		if r := b.request(sets[63], 1); r.Status != wire.OK {
			t.Errorf("the last pull: %s %s", r.Status, r.Message)
		}
	})
}

// TestOfferExpires checks when offers end, and that their entries leave the store with
// them. Run looks twice in a max_staleness, which is 2 s.
func TestOfferExpires(t *testing.T) {
	offering(t, func(t *testing.T, a *host, _ *asker) {
		a.run()
		offers := []string{"silent", "pulled", "fetched", "offered again", "done later", "done"}
		askers, keys := map[string]*asker{}, map[string]kv.Key{}
		for _, name := range offers {
			b := a.asker("b")
			keys[name] = a.put("default", name, "v", 0)
			set := partitions(keys[name])
			for i := range 20 { // more than a batch
				set.Add(a.put("default", fmt.Sprint(name, i), strings.Repeat("v", 20<<10), 0).Hash.Partition())
			}
			a.release(b.ballot, set)
			askers[name] = b
		}
		askers["done"].all(nil, 0)
		begun := time.Now()
		check := func(at time.Duration, want ...string) {
			t.Helper()
			time.Sleep(time.Until(begun.Add(at)))
			var kept []string
			for _, name := range offers {
				if a.has(keys[name]) {
					kept = append(kept, name)
				}
			}
			if !slices.Equal(kept, want) {
				t.Errorf("after %v the store has the entries of %v, want %v", at, kept, want)
			}
		}
		check(200*time.Millisecond, offers...)
		askers["done later"].all(nil, 0)
		check(400*time.Millisecond, offers...)
		check(600*time.Millisecond, offers[:5]...)
		check(900*time.Millisecond, offers[:5]...)
		check(1100*time.Millisecond, offers[:4]...)
		check(3*time.Second, offers[:4]...)
		askers["pulled"].batch(nil, 0)
		askers["fetched"].fetch("default", "fetched")
		a.Offer(askers["offered again"].self, askers["offered again"].ballot, kv.NewPartitionSet(kv.Partitions))
		check(3900*time.Millisecond, offers[:4]...)
		check(4100*time.Millisecond, offers[1:4]...)
		check(6900*time.Millisecond, offers[1:4]...)
		if n := a.OpenOffers(); n != 3 {
			t.Errorf("%d offers are left, want 3", n)
		}
		check(7100 * time.Millisecond)
		if n := a.OpenOffers(); n != 0 {
			t.Errorf("%d offers are left, want 0", n)
		}
		for _, b := range askers {
			some, one := b.batch(nil, 1), b.fetch("default", "pulled")
			if !some.Done || len(some.Entries) > 0 || one.AsOf != 0 {
				t.Errorf("an offer that has ended gives %+v and %+v", some, one)
			}
		}
	})
}

// TestOfferExpiresWithItsOwnership checks that the end of an offer leaves the entries of a
// later ownership alone.
func TestOfferExpiresWithItsOwnership(t *testing.T) {
	offering(t, func(t *testing.T, a *host, b *asker) {
		a.run()
		k := a.put("default", "k", "v", 0)
		a.release(b.ballot, partitions(k))
		a.Begin(ownership.Begun{Ballot: a.ballot(), Partitions: partitions(k)}, nil)
		a.put("default", "k", "w", 0)
		time.Sleep(10 * time.Second)
		if a.OpenOffers() != 0 || !a.has(k) {
			t.Errorf("offering %d, and the new entry is there: %v", a.OpenOffers(), a.has(k))
		}
	})
}

// origin is an origin that nothing asks.
type origin struct {
	loader.Source
	loader.Writer
}

// TestAwaited checks that a host has something that others wait for while it offers
// entries, or a write-through is under way.
func TestAwaited(t *testing.T) {
	through := namespaces.Settings{Settings: nsorigin.Settings{Origin: loader.Custom{Source: origin{}, Writer: origin{}}, WriteThrough: true}}
	bubble.Test(t, func(t *testing.T) {
		offeringWith(t, through, func(t *testing.T, a *host, b *asker) {
			if a.Awaited() {
				t.Error("others wait for nothing")
			}
			a.release(b.ballot, partitions(a.put("default", "k", "v", 0)))
			if !a.Awaited() || a.Stats().OpenOffers != 1 {
				t.Errorf("others do not wait for an offer; it counts %d", a.Stats().OpenOffers)
			}
			b.all(nil, 0)
			if a.Awaited() {
				t.Error("others wait for an offer that was pulled to the end")
			}
			w := a.names.Lookup([]byte(namespaces.Default)).WriteThrough
			over, ended := make(chan struct{}), make(chan struct{})
			go func() { // ends once it is over
				defer close(ended)
				_, _ = w.Do(context.Background(), &namespaces.Write{Now: func(context.Context) (wire.Reply, namespaces.WriteEnd, bool) {
					<-over
					return wire.Reply{}, namespaces.WriteStored, true
				}})
			}()
			synctest.Wait()
			if !a.Awaited() {
				t.Error("others do not wait for a write-through")
			}
			close(over)
			<-ended
			if a.Awaited() {
				t.Error("others wait for a write-through that is over")
			}
		})
	})
}
