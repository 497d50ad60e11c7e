package engine

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

type stopped kv.Moment

func (s stopped) Read() kv.Moment { return kv.Moment(s) }

// TestKeptNote checks when the entries of an earlier process are of no use.
func TestKeptNote(t *testing.T) {
	now := kv.Moment{Wall: 1_700_000_000_000, Boot: time.Hour}
	e := &Engine{deps: deps{
		Clock: stopped(now), HLC: kv.NewHLC(1),
		Config: Config{
			Seed: 7, Keep: &Keep{Boot: "boot"}, Cluster: cluster.Config{MaxSkew: time.Second},
			Namespaces: namespaces.Config{Max: 3, Configured: map[string]namespaces.Settings{"default": {}, "new": {}}},
		},
	}}
	for _, tc := range []struct {
		name string
		turn func(n *keptNote)
		want string // "": it is of use
	}{
		{"a restart", func(*keptNote) {}, ""},
		{"just in time", func(n *keptNote) { n.Now.Boot -= 58 * time.Second; n.Now.Wall -= 58_000 }, ""},
		{"down for long", func(n *keptNote) { n.Now.Boot -= 60 * time.Second; n.Now.Wall -= 60_000 }, "no process ran for 1m1s, and at most 1m0s"},
		{"from the future", func(n *keptNote) { n.Now.Boot += time.Minute }, "no process ran for -59s"},
		{"the clock was set ahead", func(n *keptNote) { n.Now.Wall -= 1001 }, "the clock was set by 1.001s, and max_clock_skew is 1s"},
		{"the clock was set back", func(n *keptNote) { n.Now.Wall += 1001 }, "the clock was set by -1.001s"},
		{"the clock was set a little", func(n *keptNote) { n.Now.Wall += 999 }, ""},
		{"a reboot", func(n *keptNote) { n.Boot = "another" }, "started anew"},
		{"another seed", func(n *keptNote) { n.Seed++ }, "another seed"},
		{"a slot too high", func(n *keptNote) { n.Names["old"] = 3 }, "namespace old has slot 3, and max_namespaces is 3"},
		{"too many names", func(n *keptNote) { n.Names["older"] = 2 }, "there are 4 namespaces"},
		{"a host of a cluster", func(n *keptNote) { n.Node = "node a of cluster c" }, "it is of node a of cluster c, and this is a host that is alone"},
		{"a version out of range", func(n *keptNote) { n.Version = 1<<64 - 1 }, "too far ahead"},
	} {
		n := keptNote{
			Boot: "boot", Now: kv.Moment{Wall: now.Wall - 1000, Boot: now.Boot - time.Second},
			Version: kv.NewHLC(2).Next(now.Wall + 5000), Seed: kv.NamespaceSeed(7, ""),
			Names: map[string]kv.NamespaceID{"default": 0, "old": 1},
		}
		tc.turn(&n)
		note := wire.MarshalBody(&n)
		err := e.kept.accept(e, note)
		if tc.want == "" {
			if err != nil || e.HLC.Next(now.Wall) <= n.Version {
				t.Errorf("%s: %v, and the next version must exceed those that are kept", tc.name, err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	e.Config.Node, e.Config.Cluster.Bind = "a", "127.0.0.1:7946"
	for _, tc := range []struct {
		name, node string
		kept       []wire.Kept
		want       string
	}{
		{"a restart", "node a of cluster cachesidecar", []wire.Kept{{}}, ""},
		{"another node", "node b of cluster cachesidecar", []wire.Kept{{}}, "it is of node b of cluster cachesidecar, and this is node a of"},
		{"alone before", "", []wire.Kept{{}}, "it is of a host that is alone, and this is node a of"},
		{"drained", "node a of cluster cachesidecar", nil, "no other host took over what the process before owned, or it was drained"},
	} {
		n := keptNote{Boot: "boot", Now: now, Version: 1, Seed: kv.NamespaceSeed(7, ""), Node: tc.node, Kept: tc.kept}
		note := wire.MarshalBody(&n)
		if err := e.kept.accept(e, note); (tc.want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := e.kept.accept(e, []byte{0xc1}); err == nil {
		t.Error("a note that is none is accepted")
	}
}
