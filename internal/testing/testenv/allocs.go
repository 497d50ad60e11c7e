package testenv

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
)

// Allocates checks that f allocates at most so many times, the least of five means of so many
// runs: whatever else runs in the process is counted too. Under the race detector f only
// runs, since pools drop items on purpose there.
func Allocates(t testing.TB, what string, most float64, runs int, f func()) {
	t.Helper()
	if race.Enabled {
		testing.AllocsPerRun(min(runs, 1000), f)
		return
	}
	least := testing.AllocsPerRun(runs, f)
	for n := 1; n < 5 && least > most; n++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	if least > most {
		t.Errorf("%s: %v allocations, want at most %v", what, least, most)
	}
}
