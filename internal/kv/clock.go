package kv

import (
	"math"
	"time"
)

// Clock gives the two clocks of a host. Wall time stamps versions and is shown
// to people; the boot clock, which also advances while the machine sleeps and
// while the process does not run, decides deadlines, leases and pauses.
type Clock interface {
	// Now returns the wall clock.
	Now() time.Time
	// Boot returns the time since the machine started.
	Boot() time.Duration
}

// Moment is one reading of both clocks. The hot path reads it once per batch.
type Moment struct {
	Wall int64         // milliseconds since the Unix epoch
	Boot time.Duration // since the machine started
}

// Read takes a Moment from a clock.
func Read(c Clock) Moment {
	return Moment{Wall: c.Now().UnixMilli(), Boot: c.Boot()}
}

// Deadline is a moment of the boot clock in milliseconds; zero is never. An
// entry is gone from its deadline on.
type Deadline int64

// MaxDeadline is the last deadline that a store can hold (34 years of uptime).
const MaxDeadline Deadline = 1<<40 - 1

// After returns the deadline that lies ttl after now; a ttl of zero or less
// gives no deadline. It rounds up, so that a ttl below 1 ms is not "never".
func After(now, ttl time.Duration) Deadline {
	if ttl <= 0 {
		return 0
	}
	if ttl > math.MaxInt64-now-time.Millisecond {
		return MaxDeadline
	}
	return min(max(1, Deadline((now+ttl+time.Millisecond-1)/time.Millisecond)), MaxDeadline)
}

// Passed says whether the deadline has come.
func (d Deadline) Passed(now time.Duration) bool {
	return d != 0 && int64(now) >= int64(d)*int64(time.Millisecond)
}

// Remaining returns the time left, or zero where there is no deadline. A
// deadline that has passed leaves 1 ns, never zero.
func (d Deadline) Remaining(now time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return max(1, time.Duration(d)*time.Millisecond-now)
}

// SystemClock is the clock of the machine.
type SystemClock struct{}

// Now returns the wall clock.
func (SystemClock) Now() time.Time { return time.Now() }
