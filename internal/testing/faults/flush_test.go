package faults

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLengthyProcessFlushThenRestarts flushes a namespace, and then all namespaces, on all
// hosts. Of the entries that are written afterwards, restarts of each host in turn lose
// none.
func TestLengthyProcessFlushThenRestarts(t *testing.T) {
	for _, voted := range []bool{false, true} {
		name := "available"
		if voted {
			name = "consistent"
		}
		t.Run(name, func(t *testing.T) {
			scenario(t, 20*time.Second)
			const keys = 1000
			g := newGroup(t, 2*fast, 3)
			if voted {
				g.vote(g.nodes...)
			}
			g.start(g.nodes)
			for _, all := range []bool{false, true} {
				g.fill(keys)
				testenv.Succeeds(t, "a flush", func() error {
					return g.any().app.Flush(t.Context(), cachesidecar.FlushOptions{All: all})
				})
				time.Sleep(g.bound)
				if r := g.hits(keys); r.hits.Load() > 0 {
					t.Errorf("after a flush of the cluster (all: %v) reads still hit: %v", all, r)
				}
			}
			g.fill(keys)
			for _, n := range g.nodes {
				begun := time.Now()
				n.leave()
				n.start()
				g.settle(n.spec.Node+" was restarted", begun)
				// A read may be late, or degraded.
				testenv.Succeeds(t, "all to be there after a restart of "+n.spec.Node, func() error {
					if r := g.hits(keys); r.hits.Load() != keys {
						return fmt.Errorf("reads hit %v", r)
					}
					return nil
				})
			}
		})
	}
}
