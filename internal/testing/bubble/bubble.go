// Package bubble runs tests in virtual time. It is testing/synctest, but for the number of
// bubbles at once, and for the race detector: there it lets one goroutine run at a time.
package bubble

import (
	"runtime"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/testing/race"
)

// room bounds the bubbles that are under way. A bubble never waits, so more of them would
// only starve tests that count on the machine's clock.
var room = make(chan struct{}, most())

func most() int {
	if race.Enabled {
		return 1
	}
	return runtime.GOMAXPROCS(0)
}

// Test is synctest.Test. It waits while there are as many bubbles as processors. Under the
// race detector there is one bubble at a time, and the whole process has one processor until
// f returns: two processors that fire timers of a bubble at once corrupt the detector, and
// the process dies (golang/go#78156).
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	room <- struct{}{}
	defer func() { <-room }()
	if race.Enabled {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	synctest.Test(t, f)
}
