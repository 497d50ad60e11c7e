package cachesidecar

import (
	"reflect"
	"testing"
)

// TestTotals checks that numbers are added up, by the labels of lists, and that times,
// texts and maps are left out.
func TestTotals(t *testing.T) {
	host := func(n int64, namespaces ...NamespaceStats) Stats {
		return Stats{
			Node: "host", UptimeMS: n, L2: L2Stats{Entries: n, Overhead: 1.5, Memory: L2Memory{Used: n}},
			Cluster: ClusterState{
				Owned: int(n), Members: 3, StoppedMS: n,
				Invalidations: InvalidationStats{LagUS: n, Leases: []LeaseStats{{Node: "other", AgeMS: n}}},
			},
			Namespaces: namespaces, Process: ProcessStats{PID: n}, Members: map[string]int64{"in": n},
		}
	}
	all := ClusterStats{Nodes: []Stats{
		host(1, NamespaceStats{Name: "a", Hits: 10, Loads: LoadStats{Loads: 1, MeanUS: 5}}, NamespaceStats{Name: "b", Hits: 20}),
		host(2, NamespaceStats{Name: "b", Hits: 30, Loads: LoadStats{Loads: 2, Breaker: "open"}}),
	}}
	want := Stats{
		L2: L2Stats{Entries: 3, Memory: L2Memory{Used: 3}},
		Cluster: ClusterState{
			Owned: 3, StoppedMS: 3, Invalidations: InvalidationStats{Leases: []LeaseStats{{Node: "other"}}},
		},
		Namespaces: []NamespaceStats{
			{Name: "a", Hits: 10, Loads: LoadStats{Loads: 1}}, {Name: "b", Hits: 50, Loads: LoadStats{Loads: 2}},
		},
	}
	got := all.Total()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if sum := got.Total(); sum.Name != "" || sum.Hits != 60 || sum.Loads.Loads != 3 {
		t.Errorf("all namespaces: %+v", sum)
	}
	if n := all.Nodes[0].Namespaces[1].Hits; n != 20 {
		t.Errorf("the source has changed: %d hits", n)
	}
}
