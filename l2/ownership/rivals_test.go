package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestRivals is the worst case for voters. The rings of some nodes never agree; these
// nodes take everything from each other, again and again, while voters forget, stop
// and are cut off. Only the voters keep two nodes from having authority at once.
func TestRivals(t *testing.T) {
	testenv.Takes(t, time.Second)
	first := firstSeed(t)
	begun := 0
	for i := range *simRuns {
		seed := first + uint64(i)
		const rivals = 3
		voters := 3 + 2*int(seed%2)
		s := newSim(t, seed, rivals+voters)
		s.rivals = rivals
		for _, n := range s.nodes[rivals:] {
			s.voters = append(s.voters, kv.NodeID(rune('a'+n.at)))
		}
		for _, n := range s.nodes {
			n.start(false)
		}
		s.until(time.Hour + 5*time.Second)
		s.slow, s.loss = true, s.rnd.Float64()*0.2
		for range 40 {
			s.harm(rivals)
		}
		s.until(time.Hour + 65*time.Second)
		begun += s.begun
	}
	t.Logf("%d beginnings", begun)
	if begun < 5**simRuns {
		t.Error("which is too few to prove anything")
	}
}

// harm does something to one of the nodes, some time within the next minute.
func (s *sim) harm(rivals int) {
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	at, what := s.upTo(time.Minute), s.rnd.IntN(10)
	s.after(at, func() {
		switch voter := n.at >= rivals; {
		case !n.running || n.stopped:
		case what < 4 && voter:
			n.crash()
			s.after(s.upTo(simBound/2), func() { n.start(false) })
		case what < 6 && voter:
			o := s.nodes[s.rnd.IntN(rivals)]
			one, both := [2]int{o.at, n.at}, s.rnd.IntN(2) == 0
			if s.rnd.IntN(2) == 0 {
				one[0], one[1] = one[1], one[0]
			}
			s.cut[one], s.cut[[2]int{one[1], one[0]}] = true, both
			s.after(s.upTo(4*simBound), func() { delete(s.cut, one); delete(s.cut, [2]int{one[1], one[0]}) })
		case what < 8:
			n.pause()
			s.after(s.upTo(3*simBound), n.resume)
		}
	})
}
