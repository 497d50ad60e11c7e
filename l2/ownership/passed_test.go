package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// meet returns the machine of a process that has met two others, which are in.
func meet(now time.Duration, self kv.Process, alone bool, others ...kv.Process) *Machine {
	v := kv.Version(100)
	m := New(Config{
		Self: self, Weight: 100, Bound: simBound, Detection: simDetection, Bootstrap: alone, Partitions: simPartitions,
		Stamp: func() kv.Version { v++; return v }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, now)
	for _, id := range others {
		m.Polled(now, id, now, m.State(), &wire.Poll{State: 1, Joined: true, In: true, Weight: 100, Leased: true})
		m.Leased(now, id, now)
	}
	m.Tick(now)
	return m
}

// TestPassed checks two hosts that claim a partition one after the other, because their
// rings have changed in another order. A member that has granted the higher ballot says
// so to the other host, and that one tries a higher ballot at once.
func TestPassed(t *testing.T) {
	a, b, d := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "d", Epoch: 1}
	now := time.Second
	weigh := func(m *Machine, state uint64, weight uint32) { // of b
		m.PolledBy(now, b, &wire.Poll{State: state, Joined: true, In: true, Weight: weight, Leased: true})
	}
	of := func(m *Machine, node kv.NodeID) kv.PartitionSet {
		set := m.newSet()
		for i := range uint16(simPartitions) {
			if m.Table().Owner(i) == node {
				set.Add(i)
			}
		}
		return set
	}
	m := meet(now, a, true, b, d)
	ring := []kv.Process{a, b, d}
	both := of(m, b.Node)
	weigh(m, 2, 0)
	for i := range both.All() {
		if m.Table().Owner(i) != d.Node {
			both.Remove(i)
		}
	}
	if both.Empty() {
		t.Fatal("d gets nothing of b's")
	}
	if got := m.Asked(now, d, Acquire{Ballot: &kv.Ballot{Clock: 2000, Process: d}, State: 1, Partitions: both, Ring: ring}); !got.Granted.Contains(both) {
		t.Fatalf("d gets %d partitions, want %d", got.Granted.Len(), both.Len())
	}
	low := Acquire{Ballot: &kv.Ballot{Clock: 1000, Process: b}, State: 3, Partitions: both, Ring: ring}
	if got := m.Asked(now, b, low); !got.Passed.Empty() {
		t.Errorf("%d partitions have passed to others for b, to which the ring gives nothing", got.Passed.Len())
	}
	weigh(m, 4, 100)
	low.State = 4
	if got := m.Asked(now, b, low); !got.Granted.Empty() || !got.Passed.Contains(both) {
		t.Errorf("b gets %d partitions, and %d have passed, want all %d", got.Granted.Len(), got.Passed.Len(), both.Len())
	}

	n := meet(now, b, false, a, d)
	first := sent(n, a)
	if first == nil {
		t.Fatal("b asks for nothing")
	}
	n.Answered(now, a, Answer{Ballot: first.Ballot, Granted: n.newSet(), Passed: first.Partitions, In: ring})
	if next := sent(n, a); next == nil || next.Ballot.Compare(first.Ballot) <= 0 || !first.Partitions.Contains(next.Partitions) {
		t.Errorf("b asks for %+v after %+v, want what the ring still gives it, with a higher ballot", next, first)
	}
}

// sent returns the last ACQUIRE to a process since it was last called.
func sent(m *Machine, to kv.Process) (q *Acquire) {
	for _, action := range m.TakeActions() {
		if s, ok := action.(Send); ok && s.To == to {
			q = &s.Acquire
		}
	}
	return q
}
