package bubble

import (
	"runtime"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
)

// TestProcessors checks that bubbles have one processor under the race detector, and that
// the last one gives the others back.
func TestProcessors(t *testing.T) {
	before := runtime.GOMAXPROCS(3)
	defer runtime.GOMAXPROCS(before)
	within := 3
	if race.Enabled {
		within = 1
	}
	t.Run("both", func(t *testing.T) {
		for range 2 {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				for range 100 {
					Test(t, func(t *testing.T) {
						if n := runtime.GOMAXPROCS(0); n != within {
							t.Fatalf("%d processors, want %d", n, within)
						}
					})
				}
			})
		}
	})
	if n := runtime.GOMAXPROCS(0); n != 3 {
		t.Errorf("%d processors afterwards, want 3", n)
	}
}
