package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestLastOwner checks whose entries a host takes: those of the releaser that has owned the partition last, as far as
// all that answer tell about themselves. Another one may have owned it on the other side of a split.
func TestLastOwner(t *testing.T) {
	a, b, d := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "d", Epoch: 1}
	under := func(clock kv.Version, id kv.Process) *kv.Ballot { return &kv.Ballot{Clock: clock, Process: id} }
	for _, tc := range []struct {
		name    string
		a, d, b *kv.Ballot // under which each has owned the partitions
		both    bool       // d releases them too
		want    kv.NodeID
	}{
		{"only the releaser", under(5, a), nil, nil, false, "a"},
		{"another one before", under(5, a), under(4, d), nil, false, "a"},
		{"another one since", under(5, a), under(6, d), nil, false, ""},
		{"this host before", under(5, a), nil, under(4, b), false, "a"},
		{"this host since", under(5, a), nil, under(6, b), false, ""},
		{"two releasers", under(5, a), under(6, d), nil, true, "d"},
		{"a program that does not tell", nil, nil, nil, false, "a"},
	} {
		now := time.Second
		n := meet(now, b, false, a, d)
		q := sent(n, a)
		if q == nil {
			t.Fatal("b asks for nothing")
		}
		for i := range q.Partitions.All() {
			n.parts[i].ballot = tc.b
		}
		ring := []kv.Process{a, b, d}
		for _, from := range []kv.Process{d, a} {
			ans := Answer{Ballot: q.Ballot, Granted: q.Partitions, Released: n.newSet(), In: ring}
			owned := tc.a
			if from == a || tc.both {
				ans.Released = q.Partitions
			}
			if from == d {
				owned = tc.d
			}
			if owned != nil {
				ans.Authorities = []Ownership{{owned, q.Partitions}}
			}
			n.Answered(now, from, ans)
		}
		begun := false
		for _, act := range n.TakeActions() {
			g, ok := act.(Begun)
			if !ok {
				continue
			}
			begun = true
			got := kv.NodeID("")
			for id := range g.Releasers {
				got += id.Node
			}
			if got != tc.want {
				t.Errorf("%s: the entries come from %q, want %q", tc.name, got, tc.want)
			}
		}
		if !begun {
			t.Errorf("%s: no ownership begins", tc.name)
		}
	}
}

func firstOf(set kv.PartitionSet) uint16 {
	for i := range set.All() {
		return i
	}
	return 0
}

// TestTellsLastOwned checks that an answer names the ballot under which a host has owned what it grants.
func TestTellsLastOwned(t *testing.T) {
	a, b, d := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "d", Epoch: 1}
	m := meet(time.Second, a, true, b, d)
	set := m.newSet()
	for i := range uint16(simPartitions) {
		if m.Table().Owner(i) == b.Node {
			set.Add(i)
		}
	}
	last := &kv.Ballot{Clock: 7, Process: a}
	m.parts[firstOf(set)].ballot = last
	got := m.Asked(time.Second, b, Acquire{Ballot: &kv.Ballot{Clock: 2000, Process: b}, State: 1, Partitions: set, Ring: []kv.Process{a, b, d}})
	if len(got.Authorities) != 1 || got.Authorities[0].Ballot != last || got.Authorities[0].Partitions.Len() != 1 ||
		!got.Authorities[0].Partitions.Has(firstOf(set)) || got.Voter {
		t.Errorf("it tells %+v, voter %v", got.Authorities, got.Voter)
	}
}
