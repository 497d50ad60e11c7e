//go:build failpoint

package sidecar

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Levers for making one interleaving on purpose.

// slowFollower is a host's clock under which, while it is stalled, the host
// does not get to apply what others have appended to their logs.
type slowFollower struct {
	*virtualClock
	stalled atomic.Bool
}

func (c *slowFollower) Read() kv.Moment {
	for c.stalled.Load() && calledBy("followOnce") {
		time.Sleep(10 * time.Millisecond)
	}
	return c.virtualClock.Read()
}
