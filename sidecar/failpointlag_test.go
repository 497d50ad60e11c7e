//go:build failpoint

package sidecar

import (
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
