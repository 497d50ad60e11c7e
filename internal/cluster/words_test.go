package cluster

import (
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

// Which processes one ring has and another one has not.
func TestViewLacks(t *testing.T) {
	a, b, again := &Owner{Process: kv.Process{Node: "a"}}, &Owner{Process: kv.Process{Node: "b", Epoch: 1}}, &Owner{Process: kv.Process{Node: "b", Epoch: 2}}
	for _, test := range []struct {
		name       string
		old, view  []*Owner
		came, went string
	}{
		{"the same", []*Owner{a, b}, []*Owner{a, b}, "", ""},
		{"first", nil, []*Owner{a}, "a", ""},
		{"one comes", []*Owner{a}, []*Owner{a, b}, "b", ""},
		{"one goes", []*Owner{a, b}, []*Owner{b}, "", "a"},
		{"another process", []*Owner{a, b}, []*Owner{a, again}, "b", "b"},
	} {
		view, old := &View{owners: test.view}, &View{owners: test.old}
		if came, went := names(old.lacks(view)), names(view.lacks(old)); came != test.came || went != test.went {
			t.Errorf("%s: %q came and %q went, want %q and %q", test.name, came, went, test.came, test.went)
		}
	}
}

func names(list []kv.Process) string {
	var names []string
	for _, id := range list {
		names = append(names, string(id.Node))
	}
	return strings.Join(names, ",")
}
