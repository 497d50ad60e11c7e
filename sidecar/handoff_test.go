package sidecar

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/holding"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// TestHandoffOfNegatives: that the origin has no value moves with the rest, both
// in the stream and for who asks for one key; what is stale stays.
func TestHandoffOfNegatives(t *testing.T) {
	var hosts [2]*Sidecar
	for i := range hosts {
		s, err := New(Config{Node: fmt.Sprint("host", i), NoSocket: true, L2Size: 8 << 20, Bind: "127.0.0.1:0", Join: []string{"127.0.0.1:1"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			s.l1.Close()
			_ = s.store.Close()
		})
		hosts[i] = s
	}
	a, b := hosts[0], hosts[1]
	now := a.clock.Read()
	ttl := kv.After(now.Boot, time.Hour)
	key := a.names.lookup(defaultNamespace).key
	fill := func(name string, f segment.Fill) {
		t.Helper()
		k := key([]byte(name))
		f.Version, f.Generation = a.hlc.Next(now.Wall), a.store.Generation(k.Hash.Partition())
		f.Deadline, f.Admit = ttl, func() bool { return true }
		if r := a.store.Fill(k, f, now); r != segment.Stored {
			t.Fatalf("%s: %d", name, r)
		}
	}
	fill("value", segment.Fill{Value: []byte("v")})
	fill("empty", segment.Fill{})
	fill("none", segment.Fill{Absent: true})
	fill("asked for", segment.Fill{Absent: true})
	fill("softened", segment.Fill{Value: []byte("v")})
	a.store.Soften(key([]byte("softened")), now)

	all := kv.NewPartitionSet(kv.Partitions)
	generations := map[uint16]uint16{}
	for p := range uint16(kv.Partitions) {
		all.Add(p)
		generations[p] = b.store.Generation(p)
	}
	ballot := &holding.Ballot{Clock: a.hlc.Next(now.Wall), Process: b.node.Self()}
	a.handoff.Ended(all, a.hlc.Next(now.Wall))
	a.handoff.Offer(b.node.Self(), ballot, all)
	src := &source{from: a.node.Self(), ballot: cluster.ToBallot(ballot), partitions: all, generations: generations}
	for p := range all.All() {
		b.handoff.incoming[p].Store(src)
	}
	none := segment.Info{Marks: segment.Marks{Absent: true}}
	expect := func(how string, want map[string]segment.Info) {
		t.Helper()
		for _, name := range []string{"value", "empty", "none", "asked for", "softened"} {
			info, ok := b.store.Peek(key([]byte(name)), b.clock.Read().Boot)
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
	r := a.handoff.serveFetch(b.node.Self(), &wire.Fetch{Ballot: src.ballot, Namespace: string(defaultNamespace), Key: []byte("asked for")})
	if err := wire.UnmarshalBody(r.Body, &one); err != nil || !one.Found {
		t.Fatalf("fetched %+v, %v", one, err)
	}
	b.handoff.restore(src, &one.Entry, kv.Version(one.AsOf), now)
	expect("fetched", map[string]segment.Info{"asked for": none})

	var some wire.Pulled
	r = a.handoff.servePull(b.node.Self(), &wire.Pull{Ballot: src.ballot})
	if err := wire.UnmarshalBody(r.Body, &some); err != nil || len(some.Entries) != 4 {
		t.Fatalf("pulled %+v, %v", some, err)
	}
	for i := range some.Entries {
		b.handoff.restore(src, &some.Entries[i], kv.Version(some.AsOf), now)
	}
	expect("pulled", map[string]segment.Info{"value": {Size: 1}, "empty": {}, "none": none, "asked for": none})
}
