package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestHandover: if nothing fails, the new owner of a partition gets its entries from
// the last owner, so a cluster that is restarted node by node keeps its entries.
// Nodes hear of a change one after the other, so some of them refuse an early asker.
func TestHandover(t *testing.T) {
	tests := []struct {
		name string
		do   func(s *sim, n *simNode)
	}{
		{"leave", func(s *sim, n *simNode) {
			n.run(n.epoch, func() { n.m.Leave(n.now()) })
		}},
		{"restart", func(s *sim, n *simNode) {
			n.run(n.epoch, func() { n.m.Leave(n.now()) })
			// It goes when it has given everything away.
			s.after(4*time.Second, func() {
				n.run(n.epoch, func() { n.m.Stop(n.now()) })
				n.crash()
				for _, o := range s.nodes {
					o.run(o.epoch, func() { o.m.Left(o.now(), n.id) })
				}
				s.after(s.upTo(200*time.Millisecond), func() { n.start(false) })
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			moved, empty := 0, 0
			for seed := range uint64(*simRuns) {
				s := newSim(t, seed+1, 3+int(seed%3))
				for _, n := range s.nodes {
					s.after(0, func() { n.start(false) })
				}
				s.until(time.Hour + 15*time.Second)
				if err := s.settled(); err != nil {
					t.Fatalf("seed %d: %v", s.seed, err)
				}
				s.taken = func(by kv.NodeID, b Begun) {
					for p := range b.Partitions.All() {
						moved++
						given := false
						for _, set := range b.Releasers {
							given = given || set.Has(p)
						}
						if !given {
							empty++
							s.narrator.sayf("%s gets nothing of %d", by, p)
						}
					}
				}
				tt.do(s, s.nodes[s.rnd.IntN(len(s.nodes))])
				s.until(time.Hour + 35*time.Second)
			}
			t.Logf("%d partitions were taken over", moved)
			if moved < *simRuns {
				t.Error("which is too few to prove anything")
			}
			if empty > 0 {
				t.Errorf("%d of %d partitions were taken over without what was in them", empty, moved)
			}
		})
	}
}
