package sidecar

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

func put(t *testing.T, s *Sidecar, namespace, name, value string, ttl time.Duration) kv.Key {
	t.Helper()
	ns, bad := s.engine.Names.Obtain([]byte(namespace), nil)
	if bad != nil {
		t.Fatal(bad)
	}
	now := s.engine.Clock.Read()
	k := ns.Key([]byte(name))
	if _, r := s.engine.Store.Put(k, segment.Write{Value: []byte(value), Deadline: kv.After(now.Boot, ttl)}, now); r != segment.Stored {
		t.Fatalf("%s: %d", name, r)
	}
	return k
}

// A batch whose answer is lost is asked for again, seconds later. The new answer has the
// time that is left of each entry by then, and no expired entries.
func TestBatchIsSentAgainAsItIsThen(t *testing.T) {
	a, b, clock := handingOver(t)
	begun := a.engine.Clock.Read().Boot
	short := put(t, a, DefaultNamespace, "short", "v", time.Second)
	long := put(t, a, DefaultNamespace, "long", "v", 6*time.Second)
	ever := put(t, a, DefaultNamespace, "ever", "v", 0)
	src := releaseAll(a, b)
	a.engine.Handoff.ServePull(b.engine.Node.Self(), &wire.Pull{Ballot: src.Ballot})
	clock.forward(5 * time.Second)
	again, _ := pullBatch(t, a, b, src, wire.Pull{})
	if len(again.Entries) != 2 {
		t.Errorf("sent again: %d entries, want the two that have not ended", len(again.Entries))
	}
	now := b.engine.Clock.Read().Boot
	if info, ok := b.engine.Store.Peek(short, now); ok {
		t.Errorf("a value that ended %v ago has %v left", now-begun-time.Second, info.Deadline.Remaining(now))
	}
	info, ok := b.engine.Store.Peek(long, now)
	if left := info.Deadline.Remaining(now); !ok || left > 980*time.Millisecond || left < 975*time.Millisecond {
		t.Errorf("a value has %v left, %v, want 2 %% less than a second", left, ok)
	}
	if info, ok := b.engine.Store.Peek(ever, now); !ok || info.Deadline != 0 {
		t.Errorf("a value without an end: %+v, %v", info, ok)
	}
	clock.forward(2 * time.Second)
	if _, ok := b.engine.Store.Peek(long, b.engine.Clock.Read().Boot); ok {
		t.Errorf("it is there after its end")
	}
	if last, _ := pullBatch(t, a, b, src, wire.Pull{Batch: 1}); !last.Done || len(last.Entries) > 0 || a.engine.Handoff.Offering() > 0 {
		t.Errorf("the end: %+v, offering %d", last, a.engine.Handoff.Offering())
	}
}

// Partitions that a later answer releases to the same ballot are offered too, with what
// was written until then. A new owner that has begun with some of them pulls those
// partitions first, and the others later.
func TestOfferGrows(t *testing.T) {
	a, b, _ := handingOver(t)
	var sets [2]kv.PartitionSet
	for i := range sets {
		sets[i] = kv.NewPartitionSet(kv.Partitions)
	}
	keys := map[string]int{}
	for i := range 20 {
		name := fmt.Sprint("key", i)
		sets[i%2].Add(put(t, a, DefaultNamespace, name, "first", 0).Hash.Partition())
		keys[name] = i % 2
	}
	ballot := &ownership.Ballot{Clock: a.engine.HLC.Next(a.engine.Clock.Read().Wall), Process: b.engine.Node.Self()}
	first := release(a, b, ballot, sets[0])
	for name, set := range keys {
		if set == 1 { // still owned by a
			put(t, a, DefaultNamespace, name, "second", 0)
		}
	}
	both := slices.Clone(sets[0])
	for p := range sets[1].All() {
		both.Add(p)
	}
	second := a.engine.HLC.Next(a.engine.Clock.Read().Wall)
	a.engine.Handoff.Ended(sets[1], second)
	b.engine.Changes.Floor(sets[1], second)
	a.engine.Handoff.Offer(b.engine.Node.Self(), ballot, both) // the same ballot has asked again

	for i, want := range []kv.Version{first, second} {
		src := sourceOf(a, b, ballot, sets[i])
		q := wire.Pull{Partitions: sets[i].Bytes()}
		some, admitted := pullBatch(t, a, b, src, q)
		if len(some.Entries) != 10 || admitted != 10 || kv.Version(some.AsOf) != want {
			t.Errorf("pull %d: %d entries as of %d, %d of them admitted; want 10 as of %d", i, len(some.Entries), some.AsOf, admitted, want)
		}
		if a.engine.Handoff.Offering() == 0 {
			t.Errorf("pull %d: nothing is offered before it has come to its end", i)
		}
		q.Batch++
		if some, _ := pullBatch(t, a, b, src, q); !some.Done || len(some.Entries) > 0 {
			t.Errorf("pull %d: %+v, want its end", i, some)
		}
	}
	if a.engine.Handoff.Offering() > 0 {
		t.Error("all has been pulled, and is offered")
	}
	ns := b.engine.Names.Lookup(session.DefaultNamespace)
	for name, set := range keys {
		got, _, ok := b.engine.Store.Get(nil, ns.Key([]byte(name)), segment.NoLimit, b.engine.Clock.Read().Boot)
		if want := []string{"first", "second"}[set]; !ok || string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, ok, want)
		}
	}
	// A pull that names no partitions gets all of them, batch by batch, each batch as of
	// one release.
	n := 0
	src := sourceOf(a, b, ballot, both)
	for q := (wire.Pull{}); ; q.Batch++ {
		some, _ := pullBatch(t, a, b, src, q)
		if n += len(some.Entries); some.Done && len(some.Entries) == 0 {
			break
		}
	}
	if n != 20 {
		t.Errorf("a pull of all: %d entries, want 20", n)
	}
}

// Entries of a namespace that has lost its slot between two batches are not given to the
// namespace that has the slot now.
func TestSlotOfAnotherBetweenBatches(t *testing.T) {
	a, b, _ := handingOver(t)
	value := string(make([]byte, 2<<10))
	const n = 400
	var keys []kv.Key
	for i := range n {
		keys = append(keys, put(t, a, "before", fmt.Sprint("key", i), value, 0))
	}
	src := releaseAll(a, b)
	some, _ := pullBatch(t, a, b, src, wire.Pull{})
	if got := len(some.Entries); got == 0 || got == n || some.Entries[0].Namespace != "before" {
		t.Fatalf("the first batch has %d entries", got)
	}
	slot := a.engine.Names.All()["before"].ID
	for _, k := range keys { // as if they had expired
		a.engine.Store.Delete(k, a.engine.Clock.Read())
	}
	a.engine.Names.Mu.Lock()
	a.engine.Names.Free = nil // the next name takes the slot of an empty namespace
	a.engine.Names.Mu.Unlock()
	if after, bad := a.engine.Names.Obtain([]byte("after"), nil); bad != nil || after.ID != slot {
		t.Fatalf("it has another slot: %v", bad)
	}
	for batch := uint64(1); ; batch++ {
		some, _ := pullBatch(t, a, b, src, wire.Pull{Batch: batch})
		for _, e := range some.Entries {
			t.Errorf("%s of another namespace is given as %s's", e.Key, e.Namespace)
		}
		if some.Done {
			break
		}
	}
}

// Entries that a process sends for a partition are kept out if that process is not the
// partition's source: it stopped earlier than the source.
func TestEntriesComeFromTheirSource(t *testing.T) { entriesComeFromTheirSource(t, t.Errorf) }

func entriesComeFromTheirSource(t *testing.T, bad func(format string, args ...any)) {
	a, b, _ := handingOver(t)
	mine, others := put(t, a, DefaultNamespace, "mine", "v", 0), put(t, a, DefaultNamespace, "others", "old", 0)
	ballot := &ownership.Ballot{Clock: a.engine.HLC.Next(a.engine.Clock.Read().Wall), Process: b.engine.Node.Self()}
	set := partitionSet(mine.Hash.Partition())
	set.Add(others.Hash.Partition())
	release(a, b, ballot, set)
	c := kv.Process{Node: "c", Epoch: 1}
	b.engine.Handoff.Begin(ownership.Begun{
		Ballot: ballot, Partitions: set,
		Releasers: map[kv.Process]kv.PartitionSet{a.engine.Node.Self(): partitionSet(mine.Hash.Partition()), c: partitionSet(others.Hash.Partition())},
	}, nil)
	src := b.engine.Handoff.Incoming[mine.Hash.Partition()].Load()
	if other := b.engine.Handoff.Incoming[others.Hash.Partition()].Load(); src == nil || other == nil || src == other || other.From != c {
		t.Fatalf("the sources are %+v and %+v", src, other)
	}
	pullBatch(t, a, b, src, wire.Pull{}) // all entries that a has released
	if _, ok := b.engine.Store.Peek(mine, b.engine.Clock.Read().Boot); !ok {
		t.Errorf("an entry from its source is not kept")
	}
	if _, ok := b.engine.Store.Peek(others, b.engine.Clock.Read().Boot); ok {
		bad("an entry is kept that does not come from its partition's source")
	}
}
