//go:build failpoint

package hosts

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Levers that produce one interleaving on purpose.

// slowFollower is the clock of a host. While it is stalled, the host does not apply the
// events that other hosts have appended to their logs.
type slowFollower struct {
	*virtualClock
	stalled atomic.Bool
}

func (c *slowFollower) Read() kv.Moment {
	for c.stalled.Load() && calledBy("(*following).apply") {
		time.Sleep(10 * time.Millisecond)
	}
	return c.virtualClock.Read()
}
