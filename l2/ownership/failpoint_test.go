//go:build failpoint

package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// TestFailpointStops checks each rule about the time in which a process does not run:
// without it, two nodes come to serve one partition.
func TestFailpointStops(t *testing.T) {
	for _, c := range []struct {
		guard failpoint.Guard
		fault func(s *sim)
		nodes int
	}{
		{failpoint.Pause, faults[4].do, 3},
		{failpoint.Stutter, stutters, 3},
		{failpoint.RunningTime, turns, 2},
	} {
		t.Run(c.guard.String(), func(t *testing.T) {
			defer failpoint.Set()
			const runs = 2000
			first := uint64(1)
			for seed := first; seed < first+runs; seed++ {
				if stopped(t, seed, c.nodes, c.fault, c.guard) > 0 {
					t.Logf("found in run %d", seed-first+1)
					if n := stopped(t, seed, c.nodes, c.fault); n > 0 {
						t.Errorf("and with the rule, too")
					}
					return
				}
			}
			t.Errorf("nothing was found in %d runs", runs)
		})
	}
}

// TestFailpointAnswered: without the condition on polls, a busy host gives up what it
// owns although all members hear it.
func TestFailpointAnswered(t *testing.T) {
	defer failpoint.Set()
	failpoint.Set(failpoint.Answered)
	found := 0
	busyHostGoesOn(func(string, ...any) { found++ })
	if found != 1 {
		t.Errorf("it is missed in %d cases", found)
	}
}

// stopped runs without some guards and returns how often something was broken.
func stopped(t *testing.T, seed uint64, nodes int, fault func(*sim), out ...failpoint.Guard) int {
	s := newSim(t, seed, nodes)
	s.counts = true
	failpoint.Set()
	for _, n := range s.nodes {
		s.after(0, func() { n.start(false) })
	}
	s.until(time.Hour + 15*time.Second)
	failpoint.Set(out...)
	fault(s)
	s.until(time.Hour + 45*time.Second)
	failpoint.Set()
	return s.broken
}
