//go:build failpoint

package sidecar

import (
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

func init() {
	when := func(how string) func(*testing.T, func(string, ...any)) {
		return func(t *testing.T, bad func(string, ...any)) { lagDoors(t, how, bad) }
	}
	shown = append(shown, []shownGuard{
		{failpoint.DeleteBars, "TestVirtualLagDoors", when("left alone")},
		{failpoint.WriteBars, "TestVirtualLagEarly", func(t *testing.T, bad func(string, ...any)) { lagEarly(t, false, bad) }},
		{failpoint.WriteBars, "TestVirtualLagEarly", func(t *testing.T, bad func(string, ...any)) { lagEarly(t, true, bad) }},
		{failpoint.FlushBars, "TestVirtualLagDoors", when("left alone")},
		{failpoint.BegunBars, "TestVirtualLagDoors", when("killed")},
		{failpoint.HandedBars, "TestVirtualLagDoors", when("replaced by a new host")},
	}...)
}

// TestFailpointLagRandom: the random runs with replicas that lag find each of these guards to be missing.
func TestFailpointLagRandom(t *testing.T) {
	for _, g := range []failpoint.Guard{
		failpoint.DeleteBars, failpoint.WriteBars, failpoint.FlushBars, failpoint.BegunBars, failpoint.HandedBars,
	} {
		t.Run(g.String(), func(t *testing.T) {
			failpoint.Set(g)
			defer failpoint.Set()
			for seed := uint64(1); seed <= 2*tries; seed++ {
				found := ""
				laggedRun(t, seed, func(format string, args ...any) { found = fmt.Sprintf(format, args...) })
				if found != "" {
					t.Logf("run %d: %s", seed, found)
					return
				}
			}
			t.Errorf("nothing was found in %d runs", 2*tries)
		})
	}
}
