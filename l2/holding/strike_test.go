//go:build strike

package holding

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/strike"
)

// TestStrikeStops: without a rule about the time in which a process does not run,
// two nodes come to serve one partition.
func TestStrikeStops(t *testing.T) {
	for _, c := range []struct {
		guard strike.Guard
		fault func(s *sim)
		nodes int
	}{
		{strike.Pause, faults[4].do, 3},
		{strike.Stutter, stutters, 3},
		{strike.RunningTime, turns, 2},
	} {
		t.Run(c.guard.String(), func(t *testing.T) {
			defer strike.Set()
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

// TestStrikeAnswered: without the condition on polls, a busy host gives up what it
// holds though all members hear it.
func TestStrikeAnswered(t *testing.T) {
	defer strike.Set()
	strike.Set(strike.Answered)
	found := 0
	busyHostGoesOn(func(string, ...any) { found++ })
	if found != 1 {
		t.Errorf("it is missed in %d cases", found)
	}
}

// stopped is a run without some guards; it returns how often something was broken.
func stopped(t *testing.T, seed uint64, nodes int, fault func(*sim), out ...strike.Guard) int {
	s := newSim(t, seed, nodes)
	s.counts = true
	strike.Set()
	for _, n := range s.nodes {
		s.after(0, func() { n.start(false) })
	}
	s.until(time.Hour + 15*time.Second)
	strike.Set(out...)
	fault(s)
	s.until(time.Hour + 45*time.Second)
	strike.Set()
	return s.broken
}
