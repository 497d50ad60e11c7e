// Package bubble runs tests in virtual time. It is testing/synctest, but for the race
// detector: there it lets one goroutine run at a time.
package bubble

import (
	"runtime"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/cachesidecar/cachesidecar/internal/race"
)

// lone counts the bubbles that are under way, and keeps the number of processors before
// the first of them.
var lone struct {
	sync.Mutex
	bubbles, processors int
}

// Test is synctest.Test. Under the race detector the whole process has one processor
// until f returns: two processors that fire timers of a bubble at once corrupt the
// detector, and the process dies (golang/go#78156).
func Test(t *testing.T, f func(*testing.T)) {
	t.Helper()
	if race.Enabled {
		begin()
		defer end()
	}
	synctest.Test(t, f)
}

func begin() {
	lone.Lock()
	defer lone.Unlock()
	if lone.bubbles++; lone.bubbles == 1 {
		lone.processors = runtime.GOMAXPROCS(1)
	}
}

func end() {
	lone.Lock()
	defer lone.Unlock()
	if lone.bubbles--; lone.bubbles == 0 {
		runtime.GOMAXPROCS(lone.processors)
	}
}
