package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestPeerPortBlocked checks a cluster in which gossip passes, and no node can poll
// one of the nodes. That node goes out, or does not come in. The others are in, and
// none of them goes out because of it.
func TestPeerPortBlocked(t *testing.T) {
	tests := []struct {
		name  string
		nodes int
		begin func(s *sim, bad *simNode) // runs the cluster, and blocks the port
	}{
		{"later", 3, (*sim).blockLater},
		{"later, of five", 5, (*sim).blockLater},
		{"from the start", 3, func(s *sim, bad *simNode) {
			bad.blocked = true
			s.startAll()
		}},
		{"of one that joins", 2, (*sim).joinBlocked},
		{"of one that joins two", 3, (*sim).joinBlocked},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for seed := range uint64(*simRuns) {
				s := newSim(t, seed+1, tt.nodes)
				bad := s.nodes[int(seed)%tt.nodes]
				gone := 0
				s.state = func(n *simNode, in bool) {
					if n != bad && !in {
						gone++
					}
				}
				tt.begin(s, bad)
				s.until(s.now + 10*time.Second)
				for _, n := range s.nodes {
					if n.m.In() != (n != bad) {
						t.Errorf("seed %d: %s is blocked: %s is in: %v", s.seed, bad.id, n.id, n.m.In())
					}
					if why := n.m.Trouble(bad.id.Node); why == "" {
						t.Errorf("seed %d: %s does not know what is wrong with %s", s.seed, n.id, bad.id)
					}
				}
				for p := range uint16(s.partitions) {
					if s.servers(p, bad) != 1 {
						t.Fatalf("seed %d: %s is blocked: partition %d is served by %d others", s.seed, bad.id, p, s.servers(p, bad))
					}
				}
				if gone > 0 {
					t.Errorf("seed %d: %s is blocked: others went out %d times", s.seed, bad.id, gone)
				}
				bad.blocked = false
				s.until(s.now + 10*time.Second)
				if err := s.settled(); err != nil {
					t.Errorf("seed %d: after it was opened: %v", s.seed, err)
				}
				if why := bad.m.Trouble(bad.id.Node); why != "" {
					t.Errorf("seed %d: after it was opened: %s", s.seed, why)
				}
			}
		})
	}
}

func (s *sim) startAll() {
	for _, n := range s.nodes {
		s.after(s.upTo(50*time.Millisecond), func() { n.start(false) })
	}
}

func (s *sim) blockLater(bad *simNode) {
	s.startAll()
	s.until(s.now + 10*time.Second)
	bad.blocked = true
}

func (s *sim) joinBlocked(bad *simNode) {
	bad.blocked = true
	for _, n := range s.nodes {
		if n != bad {
			n.start(false)
		}
	}
	s.until(s.now + 10*time.Second)
	bad.start(false)
}

// servers counts the nodes that serve a partition, except for one node.
func (s *sim) servers(p uint16, but *simNode) (n int) {
	for _, node := range s.nodes {
		if node != but && node.m.serves(p) {
			n++
		}
	}
	return n
}

// TestPairThatCannotPoll: two of three nodes cannot poll each other. One of the two
// goes out, and the other two nodes continue; after that nothing changes.
func TestPairThatCannotPoll(t *testing.T) {
	for seed := range uint64(*simRuns) {
		s := newSim(t, seed+1, 3)
		s.startAll()
		s.until(s.now + 10*time.Second)
		changes := map[kv.NodeID]int{}
		s.state = func(n *simNode, in bool) { changes[n.id.Node]++ }
		s.unpolled = [2]int{0, 1}
		s.until(s.now + 15*time.Second)
		if !s.nodes[0].m.In() || s.nodes[1].m.In() || !s.nodes[2].m.In() || len(changes) != 1 || changes["b"] != 1 {
			t.Errorf("seed %d: a is in: %v, b %v, c %v; %v changes", s.seed, s.nodes[0].m.In(), s.nodes[1].m.In(), s.nodes[2].m.In(), changes)
		}
		s.unpolled = [2]int{}
		s.until(s.now + 10*time.Second)
		if err := s.settled(); err != nil {
			t.Errorf("seed %d: %v", s.seed, err)
		}
	}
}
