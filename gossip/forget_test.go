package gossip

import (
	"fmt"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestTriedAddresses: the addresses of gone nodes are tried for as long as the nodes are
// known. Dropped nodes are tried too, after the others; forgotten nodes are not.
func TestTriedAddresses(t *testing.T) {
	g := &Gossip{members: map[string]*Member{}}
	add := func(name string, alive bool) {
		g.members[name] = &Member{Node: name, Address: name + ":1", Alive: alive}
	}
	tried := func() []string {
		list, err := g.targets(t.Context(), false)
		testenv.Must(t, err)
		slices.Sort(list)
		return list
	}
	add("lives", true)
	add("gone", false)
	add("dropped", false)
	add("forgotten", false)
	for _, name := range []string{"lives", "forgotten", "unknown"} {
		g.Forget(name)
	}
	for _, name := range []string{"lives", "dropped", "unknown"} {
		g.Drop(name)
	}
	if got := tried(); !slices.Equal(got, []string{"dropped:1", "gone:1"}) {
		t.Errorf("tried: %v", got)
	}
	var listed []string
	for _, m := range g.Members() {
		listed = append(listed, m.Node)
	}
	if !slices.Equal(listed, []string{"gone", "lives"}) {
		t.Errorf("listed: %v", listed)
	}
	for i := range 2 * maxTries {
		add(fmt.Sprint("gone", i), false)
	}
	if got := tried(); len(got) != maxTries || slices.Contains(got, "dropped:1") {
		t.Errorf("tried, where many are missing: %v", got)
	}
}
