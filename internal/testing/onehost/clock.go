package onehost

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Clock is a host's clock. It follows the time of its test, which is virtual in a bubble,
// and a test can move it on.
type Clock struct {
	begun   time.Time
	skipped atomic.Int64           // ns
	act     atomic.Pointer[func()] // called by the next reading
}

// NewClock returns a clock of a machine that has run for an hour.
func NewClock() *Clock { return &Clock{begun: testenv.Date()} }

// Read returns the present moment.
func (c *Clock) Read() kv.Moment {
	if act := c.act.Load(); act != nil {
		(*act)()
	}
	since := time.Since(c.begun) + time.Duration(c.skipped.Load())
	return kv.Moment{Wall: c.begun.Add(since).UnixMilli(), Boot: time.Hour + since}
}

// Skip moves the clock on, as if the process had not run for a while.
func (c *Clock) Skip(d time.Duration) { c.skipped.Add(int64(d)) }

// Before has f called by each reading, before it; nil: nothing. f may skip time.
func (c *Clock) Before(f func()) {
	if f == nil {
		c.act.Store(nil)
		return
	}
	c.act.Store(&f)
}
