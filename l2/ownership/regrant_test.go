package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestReleasedGrows: an owner is asked again with the same ballot, once it has heard
// of the ring that the asker has. It then releases what it refused before, and names
// again what it released before: the latest answer has all that is to be handed over.
func TestReleasedGrows(t *testing.T) {
	a, b, d := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "d", Epoch: 1}
	v := kv.Version(100)
	now := time.Second
	m := New(Config{
		Self: a, Weight: 100, Bound: simBound, Detection: simDetection, Bootstrap: true, Partitions: simPartitions,
		Stamp: func() kv.Version { v++; return v }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, now)
	m.Tick(now)
	for _, id := range []kv.Process{b, d} {
		m.Polled(now, id, now, m.State(), &wire.Poll{State: 1, Joined: true, In: true, Weight: 100, Leased: true})
		m.Leased(now, id, now)
	}
	m.Tick(now)
	q := Acquire{Ballot: &kv.Ballot{Clock: v + 1000, Process: b}, State: 1, Partitions: m.newSet(), Ring: []kv.Process{a, b}}
	// b has heard that d goes.
	table := NewRing([]RingMember{{Node: "a", Weight: 100}, {Node: "b", Weight: 100}})
	for i := range uint16(simPartitions) {
		if table.Owner(i) == "b" {
			q.Partitions.Add(i)
		}
	}
	first := m.Asked(now, b, q)
	m.Left(now, d)
	second := m.Asked(now, b, q)
	if first.Released.Empty() || first.Released.Contains(q.Partitions) {
		t.Errorf("at first %d of %d are released, want some", first.Released.Len(), q.Partitions.Len())
	}
	if !second.Released.Contains(q.Partitions) {
		t.Errorf("then %d of %d are released, want all, with those from before", second.Released.Len(), q.Partitions.Len())
	}
}
