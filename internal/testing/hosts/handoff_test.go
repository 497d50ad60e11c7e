package hosts

import (
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// stoppedClock is a clock that stands still.
type stoppedClock struct{ now kv.Moment }

func (c *stoppedClock) Read() kv.Moment { return c.now }

// handingOver returns two hosts that do not run. The test hands the entries of the first
// to the second by hand.
func handingOver(t *testing.T) (a, b *Sidecar) {
	t.Helper()
	clock := &stoppedClock{now: kv.NewSystemClock().Read()}
	var hosts [2]*Sidecar
	for i := range hosts {
		s, err := newOn(Config{
			Node: fmt.Sprint("host", i), NoSocket: true, L2Size: 8 << 20, Bind: "127.0.0.1:0", Join: []string{"127.0.0.1:1"},
		}, testhook.Machine{Clock: clock})
		testenv.Must(t, err)
		t.Cleanup(func() {
			s.engine.L1.Close()
			_ = s.engine.Store.Close()
		})
		s.engine.Serves = func(uint16) bool { return true } // it does not run, and owns nothing
		hosts[i] = s
	}
	return hosts[0], hosts[1]
}

// sourceOf returns the source from which the second host pulls some partitions.
func sourceOf(a, b *Sidecar, ballot *kv.Ballot, set kv.PartitionSet) *handoff.Source {
	src := &handoff.Source{From: a.engine.Node.Self(), Ballot: *ballot, Partitions: set, Generations: map[uint16]uint16{}}
	for p := range set.All() {
		src.Generations[p] = b.engine.Store.Generation(p)
		b.engine.Handoff.Incoming[p].Store(src)
	}
	return src
}

func put(t *testing.T, s *Sidecar, name string) kv.Key {
	t.Helper()
	ns, bad := s.engine.Namespaces.Obtain([]byte(DefaultNamespace), nil)
	if bad != nil {
		t.Fatal(bad)
	}
	k := ns.Key([]byte(name))
	if _, r := s.engine.Store.Put(k, segment.Write{Value: []byte("v")}, s.engine.Clock.Read()); r != segment.Stored {
		t.Fatalf("%s: %d", name, r)
	}
	return k
}

// Entries that a process sends for a partition are kept out if that process is not the
// partition's source: it stopped earlier than the source.
func TestEntriesComeFromTheirSource(t *testing.T) { entriesComeFromTheirSource(t, t.Errorf) }

func entriesComeFromTheirSource(t *testing.T, bad func(format string, args ...any)) {
	a, b := handingOver(t)
	mine, others := put(t, a, "mine"), put(t, a, "others")
	ballot := &kv.Ballot{Clock: a.engine.HLC.Next(a.engine.Clock.Read().Wall), Process: b.engine.Node.Self()}
	set := partitionSet(mine.Hash.Partition())
	set.Add(others.Hash.Partition())
	asOf := a.engine.HLC.Next(a.engine.Clock.Read().Wall)
	a.engine.Handoff.Ended(set, asOf)
	a.engine.Handoff.Offer(b.engine.Node.Self(), ballot, set)
	b.engine.HLC.Observe(asOf)
	b.engine.Changes.NoteFloor(set, asOf) // as the event RELEASED does
	c := kv.Process{Node: "c", Epoch: 1}
	b.engine.Handoff.Begin(ownership.Begun{
		Ballot: ballot, Partitions: set,
		Releasers: map[kv.Process]kv.PartitionSet{a.engine.Node.Self(): partitionSet(mine.Hash.Partition()), c: partitionSet(others.Hash.Partition())},
	}, nil)
	src := b.engine.Handoff.Incoming[mine.Hash.Partition()].Load()
	if other := b.engine.Handoff.Incoming[others.Hash.Partition()].Load(); src == nil || other == nil || src == other || other.From != c {
		t.Fatalf("the sources are %+v and %+v", src, other)
	}
	r := a.engine.Handoff.ServePull(b.engine.Node.Self(), &wire.Pull{Ballot: src.Ballot}) // all that a has released
	var some wire.Pulled
	if err := wire.UnmarshalBody(r.Body, &some); err != nil || len(some.Entries) != 2 {
		t.Fatalf("%s %s: %+v, %v", r.Status, r.Message, some, err)
	}
	for i := range some.Entries {
		b.engine.Handoff.Restore(src, &some.Entries[i], kv.Version(some.AsOf), b.engine.Clock.Read())
	}
	if _, ok := b.engine.Store.Peek(mine, b.engine.Clock.Read().Boot); !ok {
		t.Errorf("an entry from its source is not kept")
	}
	if _, ok := b.engine.Store.Peek(others, b.engine.Clock.Read().Boot); ok {
		bad("an entry is kept that does not come from its partition's source")
	}
}
