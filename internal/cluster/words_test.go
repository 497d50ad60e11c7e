package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// What gossip tells of two processes of one name stands in the list, for as long
// as it is told again.
func TestNamesakes(t *testing.T) {
	clock := &shifted{Clock: kv.NewSystemClock()}
	n := startNode(t, "a", clock)
	why := func() string { return n.Members()[0].Why }
	if got := why(); got != "" {
		t.Errorf("before: %q", got)
	}
	n.conflict("a", "10.0.0.1:7946", "10.0.0.2:7946")
	if got := why(); !strings.Contains(got, "10.0.0.1:7946 and 10.0.0.2:7946: names must be unique") {
		t.Errorf("then: %q", got)
	}
	n.mu.Lock()
	n.named["a"] = namesake{at: clock.Read().Boot - namesakeFor, why: "old"}
	n.mu.Unlock()
	if got := why(); got != "" {
		t.Errorf("a minute after the last word of it: %q", got)
	}
}

// What the log says of a change of the ring.
func TestViewSince(t *testing.T) {
	a, b, again := &Owner{Process: kv.Process{Node: "a"}}, &Owner{Process: kv.Process{Node: "b", Epoch: 1}}, &Owner{Process: kv.Process{Node: "b", Epoch: 2}}
	for _, test := range []struct {
		name       string
		old, view  []*Owner
		came, went []kv.NodeID
	}{
		{"the same", []*Owner{a, b}, []*Owner{a, b}, nil, nil},
		{"first", nil, []*Owner{a}, []kv.NodeID{"a"}, nil},
		{"one comes", []*Owner{a}, []*Owner{a, b}, []kv.NodeID{"b"}, nil},
		{"one goes", []*Owner{a, b}, []*Owner{b}, nil, []kv.NodeID{"a"}},
		{"another process", []*Owner{a, b}, []*Owner{a, again}, []kv.NodeID{"b"}, []kv.NodeID{"b"}},
	} {
		came, went := (&View{owners: test.view}).since(&View{owners: test.old})
		if !slices.Equal(came, test.came) || !slices.Equal(went, test.went) {
			t.Errorf("%s: %v came and %v went, want %v and %v", test.name, came, went, test.came, test.went)
		}
	}
}
