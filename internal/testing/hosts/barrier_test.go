package hosts

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

const testLag = 10 * time.Second

// barredNow reports whether a key has a load barrier: the host would not keep the result
// of a load that begins now.
func barredNow(s *Sidecar, name string, key []byte) bool {
	ns := s.engine.Namespaces.Lookup([]byte(name))
	return s.engine.Barriers.Barred(ns, ns.Key(key), s.engine.Clock.Read().Boot)
}

// del deletes a key with a load barrier of its own (replica_lag_ms); zero: the namespace's.
func del(t *testing.T, s *Sidecar, name string, key []byte, hold time.Duration, options wire.Options) {
	t.Helper()
	r, err := s.execute(t.Context(), &wire.Request{
		Op: wire.OpDelete, Namespace: []byte(name), Keys: [][]byte{key}, ReplicaLagMS: uint32(hold.Milliseconds()), Options: options,
	})
	if err != nil || r.Items[0].Status.IsError() {
		t.Fatalf("DELETE: %v %+v", err, r.Items)
	}
}

// alike returns another key of the same partition.
func alike(s *Sidecar, name string, key []byte) []byte {
	p := s.engine.Namespaces.Hash([]byte(name), key).Partition()
	for i := 0; ; i++ {
		if other := fmt.Appendf(nil, "other%d", i); s.engine.Namespaces.Hash([]byte(name), other).Partition() == p {
			return other
		}
	}
}

// TestVirtualBarrierOutlivesItsOwner checks that the next owner of a partition knows its
// load barriers, if the last owner has released it. Otherwise the whole partition has a
// barrier.
func TestVirtualBarrierOutlivesItsOwner(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 4)
		w.noRelay = true
		w.namespaces = map[string]Namespace{"lagging": {ReplicaLag: testLag}}
		w.startAll()
		w.agreed(15 * time.Second)
		time.Sleep(testLag)
		key := []byte("k")
		h := w.nodes[0].s.engine.Namespaces.Hash([]byte("lagging"), key)
		other := alike(w.nodes[0].s, "lagging", key)
		holder := func() *vnode {
			t.Helper()
			for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(time.Millisecond) {
				for _, v := range w.nodes {
					if v.s != nil && v.s.engine.Node.OwnershipEpoch(h.Partition()) != 0 {
						return v
					}
				}
			}
			t.Fatal("no host owns the key")
			return nil
		}
		for _, v := range w.nodes {
			if barredNow(v.s, "lagging", key) {
				t.Errorf("%s: a barrier before the deletion", v.name)
			}
		}
		first := holder()
		del(t, w.nodes[(first.i+1)%4].s, "lagging", key, 0, 0) // forwarded to the owner
		time.Sleep(10 * time.Millisecond)
		if !barredNow(first.s, "lagging", key) || barredNow(first.s, "lagging", other) {
			t.Error("after the deletion the key has no barrier, or another key of its partition has one")
		}
		del(t, w.nodes[(first.i+1)%4].s, "lagging", other, 100*time.Millisecond, 0)
		if !barredNow(first.s, "lagging", other) {
			t.Error("a deletion that was passed on raises no barrier")
		}
		if time.Sleep(110 * time.Millisecond); barredNow(first.s, "lagging", other) {
			t.Error("replica_lag_ms was not passed on")
		}
		first.leave()
		second := holder()
		began := second.s.engine.Clock.Read().Boot
		if !barredNow(second.s, "lagging", key) {
			t.Error("after its owner has left the key has no barrier")
		}
		time.Sleep(w.bound)
		if barredNow(second.s, "lagging", other) {
			t.Error("after the owner has left its partition has a barrier, though all its barriers are known")
		}
		time.Sleep(testLag)
		if barredNow(second.s, "lagging", key) {
			t.Errorf("a barrier %v after", second.s.engine.Clock.Read().Boot-began)
		}
		second.kill()
		third := holder()
		if !barredNow(third.s, "lagging", other) {
			t.Error("after a crash what is loaded is kept, though no host knows the barriers of the crashed one")
		}
		third.leave()
		fourth := holder()
		if !barredNow(fourth.s, "lagging", other) {
			t.Error("a host that gets a partition from the successor of a crashed one raises no barrier on it")
		}
		time.Sleep(testLag)
		if barredNow(fourth.s, "lagging", other) {
			t.Error("the partition is held for longer than its namespace says")
		}
		fourth.leave()
		time.Sleep(30 * time.Second) // the killed processes have ended by then too
	})
}

// TestVirtualReplicaLagUnknown checks that what stands for lost events may stand for load
// barriers. The other hosts may have raised any barrier, until this host has applied all
// that they had in their logs.
func TestVirtualReplicaLagUnknown(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		w.namespaces = map[string]Namespace{"lagging": {ReplicaLag: testLag}}
		w.startAll()
		w.agreed(15 * time.Second)
		time.Sleep(testLag)
		v := w.nodes[0]
		s := v.s
		other := w.nodes[1].s.engine.Node.Self()
		key := []byte("k")
		for s.engine.Node.OwnershipEpoch(s.engine.Namespaces.Hash([]byte("lagging"), key).Partition()) == 0 {
			key = append(key, 'k')
		}
		p := s.engine.Namespaces.Hash([]byte("lagging"), key).Partition()
		if barredNow(s, "lagging", key) {
			t.Error("held without a reason")
		}
		behind := s.engine.Node.View().Others()[0]
		s.engine.Handoff.Starts[p].Store(&handoff.OwnershipStart{
			At: s.engine.Clock.Read().Boot, Behind: []handoff.LogTo{{Owner: behind, Place: behind.Applied() + 1}},
		})
		if !barredNow(s, "lagging", key) {
			t.Error("what another had in its log is not known here, and nothing is held")
		}
		theirs, _ := keyOwnedBy(w.nodes[1], "key")
		mustSet(t, w.nodes[1].s, string(theirs), []byte("v"))
		time.Sleep(100 * time.Millisecond)
		if barredNow(s, "lagging", key) {
			t.Error("all that others had in their logs is known, and the partition is held")
		}
		s.engine.Delegate.Reset(other, []invalidation.Mark{{Partition: p, Changed: 1}}, nil, s.engine.HLC.Next(s.engine.Clock.Read().Wall))
		if !barredNow(s, "lagging", key) {
			t.Error("events are lost, and nothing is held")
		}
		time.Sleep(testLag)
		if barredNow(s, "lagging", key) {
			t.Error("held for longer than the namespace says")
		}
		w.leaveAll()
	})
}
