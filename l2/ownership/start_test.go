package ownership

import (
	"testing"
	"time"
)

// TestStartTogether: nodes that start at the same moment serve everything soon after
// each has decided that there was no node before. A node that has asked too early,
// before it knew all others, must not keep a partition from being served for long.
func TestStartTogether(t *testing.T) {
	const runs = 200
	var worst, sum time.Duration
	for seed := range uint64(runs) {
		s := newSim(t, seed+1, 3+int(seed%3))
		for _, n := range s.nodes {
			s.after(s.upTo(50*time.Millisecond), func() { n.start(false) })
		}
		for at := 50 * time.Millisecond; ; at += 10 * time.Millisecond {
			if s.until(time.Hour + at); s.settled() == nil {
				worst = max(worst, at)
				sum += at
				break
			}
			if at > 20*time.Second {
				t.Fatalf("seed %d: after 20 s: %v", s.seed, s.settled())
			}
		}
	}
	t.Logf("served after %v, at the mean %v", worst, sum/time.Duration(runs))
	if most := simDetection + simBound*3/2; worst > most {
		t.Errorf("served after %v, want %v at most", worst, most)
	}
}
