package ownership

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestContested checks to which ballot an owner hands its entries over that was told of higher ones: to that very
// one, and of two to none. Another host may have owned the partition since, on another side of a split.
func TestContested(t *testing.T) {
	a, b, d := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "d", Epoch: 1}
	asks, lower, higher, earlier := &Ballot{2000, b}, &Ballot{1500, d}, &Ballot{2500, d}, &Ballot{1800, b}
	for _, tc := range []struct {
		name  string
		told  []*Ballot
		gives bool
	}{
		{"no ballot", nil, true},
		{"that one", []*Ballot{asks}, true},
		{"that one, twice", []*Ballot{asks, asks}, true},
		{"a lower one", []*Ballot{lower}, false},
		{"a lower one, then that one", []*Ballot{lower, asks}, false},
		{"that one, then a lower one", []*Ballot{asks, lower}, false},
		{"a higher one", []*Ballot{higher}, false},
		{"an earlier one of the same host, then that one", []*Ballot{earlier, asks}, false},
	} {
		now := time.Second
		v := kv.Version(100)
		m := New(Config{
			Self: a, Weight: 100, Bound: simBound, Detection: simDetection, SingleNode: true, Partitions: simPartitions,
			Stamp: func() kv.Version { v++; return v }, Rand: rand.New(rand.NewPCG(1, 1)),
		}, now)
		m.Tick(now) // it owns all
		for _, id := range []kv.Process{b, d} {
			m.Polled(now, id, now, m.State(), Info{State: 1, Joined: true, In: true, Weight: 100, Leased: true})
			m.Leased(now, id, now)
		}
		set := m.newSet()
		for i := range uint16(simPartitions) {
			if m.Table().Owner(i) == b.Node && m.parts[i].owned {
				set.Add(i)
			}
		}
		if set.Empty() {
			t.Fatal("the ring gives b nothing that a owns")
		}
		for n, ballot := range tc.told {
			m.PolledBy(now, d, Info{
				State: 1, Joined: true, In: true, Weight: 100, Leased: true, Next: uint64(n + 1),
				Ballots: []Promise{{Ballot: ballot, Partitions: slices.Collect(set.All())}},
			})
		}
		got := m.Asked(now, b, Acquire{Ballot: asks, State: 1, Partitions: set, Ring: []kv.Process{a, b, d}})
		if !got.Granted.Contains(set) || got.Released.Contains(set) != tc.gives || got.Released.Empty() == tc.gives {
			t.Errorf("told of %s: %d of %d granted, %d released", tc.name, got.Granted.Len(), set.Len(), got.Released.Len())
		}
		if again := m.Asked(now, b, Acquire{Ballot: asks, State: 1, Partitions: set, Ring: []kv.Process{a, b, d}}); !slices.Equal(again.Released, got.Released) {
			t.Errorf("told of %s: asked again it releases %d", tc.name, again.Released.Len())
		}
	}
}
