package sidecar

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// setClock is a clock that moves only when a test sets it forward.
type setClock struct{ now kv.Moment }

func (c *setClock) Read() kv.Moment { return c.now }

func (c *setClock) forward(d time.Duration) {
	c.now.Boot += d
	c.now.Wall += d.Milliseconds()
}

// handingOver returns two hosts that do not run. The test hands the entries of the first
// to the second by hand.
func handingOver(t *testing.T) (a, b *Sidecar, clock *setClock) {
	t.Helper()
	clock = &setClock{now: kv.NewSystemClock().Read()}
	var hosts [2]*Sidecar
	for i := range hosts {
		s, err := New(Config{
			Node: fmt.Sprint("host", i), NoSocket: true, L2Size: 8 << 20, Bind: "127.0.0.1:0", Join: []string{"127.0.0.1:1"}, clock: clock,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			s.engine.L1.Close()
			_ = s.engine.Store.Close()
		})
		s.engine.Serves = func(uint16) bool { return true } // it does not run, and owns nothing
		hosts[i] = s
	}
	return hosts[0], hosts[1], clock
}

// release ends what a host has of some partitions and offers it to another host, whose
// ownership of them begins. It returns the version of the release.
func release(a, b *Sidecar, ballot *ownership.Ballot, set kv.PartitionSet) kv.Version {
	asOf := a.engine.HLC.Next(a.engine.Clock.Read().Wall)
	a.engine.Handoff.Ended(set, asOf)
	a.engine.Handoff.Offer(b.engine.Node.Self(), ballot, set)
	b.engine.HLC.Observe(asOf)
	b.engine.Changes.Floor(set, asOf) // as the event RELEASED does
	return asOf
}

// sourceOf returns the source from which the second host pulls some partitions.
func sourceOf(a, b *Sidecar, ballot *ownership.Ballot, set kv.PartitionSet) *handoff.Source {
	src := &handoff.Source{From: a.engine.Node.Self(), Ballot: cluster.ToBallot(ballot), Partitions: set, Generations: map[uint16]uint16{}}
	for p := range set.All() {
		src.Generations[p] = b.engine.Store.Generation(p)
		b.engine.Handoff.Incoming[p].Store(src)
	}
	return src
}

func releaseAll(a, b *Sidecar) *handoff.Source {
	all := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		all.Add(p)
	}
	ballot := &ownership.Ballot{Clock: a.engine.HLC.Next(a.engine.Clock.Read().Wall), Process: b.engine.Node.Self()}
	release(a, b, ballot, all)
	return sourceOf(a, b, ballot, all)
}

// pullBatch asks for a batch and restores its entries. It returns the batch, and how many
// entries were admitted.
func pullBatch(t *testing.T, a, b *Sidecar, src *handoff.Source, q wire.Pull) (some wire.Pulled, admitted int) {
	t.Helper()
	sent := b.engine.Clock.Read()
	q.Ballot = src.Ballot
	r := a.engine.Handoff.ServePull(b.engine.Node.Self(), &q)
	if r.Status != wire.OK {
		t.Fatalf("batch %d: %s %s", q.Batch, r.Status, r.Message)
	}
	if err := wire.UnmarshalBody(r.Body, &some); err != nil {
		t.Fatal(err)
	}
	for i := range some.Entries {
		if b.engine.Handoff.Restore(src, &some.Entries[i], kv.Version(some.AsOf), sent) {
			admitted++
		}
	}
	return some, admitted
}

// TestHandoffOfNegatives checks that negative entries move with the others, both in the
// stream and in the answer to a FETCH of one key. Stale values stay.
func TestHandoffOfNegatives(t *testing.T) {
	a, b, _ := handingOver(t)
	now := a.engine.Clock.Read()
	ttl := kv.After(now.Boot, time.Hour)
	key := a.engine.Names.Lookup(session.DefaultNamespace).Key
	fill := func(name string, f segment.Fill) {
		t.Helper()
		k := key([]byte(name))
		f.Version, f.Generation = a.engine.HLC.Next(now.Wall), a.engine.Store.Generation(k.Hash.Partition())
		f.Deadline, f.Admit = ttl, func() bool { return true }
		if r := a.engine.Store.Fill(k, f, now); r != segment.Stored {
			t.Fatalf("%s: %d", name, r)
		}
	}
	fill("value", segment.Fill{Value: []byte("v")})
	fill("empty", segment.Fill{})
	fill("none", segment.Fill{Absent: true})
	fill("asked for", segment.Fill{Absent: true})
	fill("softened", segment.Fill{Value: []byte("v")})
	a.engine.Store.Soften(key([]byte("softened")), now)

	src := releaseAll(a, b)
	none := segment.Info{Marks: segment.Marks{Absent: true}}
	expect := func(how string, want map[string]segment.Info) {
		t.Helper()
		for _, name := range []string{"value", "empty", "none", "asked for", "softened"} {
			info, ok := b.engine.Store.Peek(key([]byte(name)), b.engine.Clock.Read().Boot)
			w, there := want[name]
			if ok != there || info.Size != w.Size || info.Absent != w.Absent {
				t.Errorf("%s: %s is %+v, %v, want %+v, %v", how, name, info, ok, w, there)
			}
			if left := info.Deadline.Remaining(now.Boot); ok && (left > 59*time.Minute || left < 58*time.Minute) {
				t.Errorf("%s: %s has %v left of an hour: want 2 %% less", how, name, left)
			}
		}
	}

	var one wire.Fetched
	r := a.engine.Handoff.ServeFetch(b.engine.Node.Self(), &wire.Fetch{Ballot: src.Ballot, Namespace: string(session.DefaultNamespace), Key: []byte("asked for")})
	if err := wire.UnmarshalBody(r.Body, &one); err != nil || !one.Found {
		t.Fatalf("fetched %+v, %v", one, err)
	}
	b.engine.Handoff.Restore(src, &one.Entry, kv.Version(one.AsOf), now)
	expect("fetched", map[string]segment.Info{"asked for": none})

	var some wire.Pulled
	r = a.engine.Handoff.ServePull(b.engine.Node.Self(), &wire.Pull{Ballot: src.Ballot})
	if err := wire.UnmarshalBody(r.Body, &some); err != nil || len(some.Entries) != 4 {
		t.Fatalf("pulled %+v, %v", some, err)
	}
	for i := range some.Entries {
		b.engine.Handoff.Restore(src, &some.Entries[i], kv.Version(some.AsOf), now)
	}
	expect("pulled", map[string]segment.Info{"value": {Size: 1}, "empty": {}, "none": none, "asked for": none})
}
