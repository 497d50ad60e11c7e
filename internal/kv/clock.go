package kv

import (
	"context"
	"iter"
	"math"
	"sync/atomic"
	"time"
)

// Clock gives the two clocks of a host. Wall time stamps versions and is shown to people.
// The boot clock decides deadlines, leases and pauses; it also advances while the machine
// sleeps and while the process does not run.
type Clock interface {
	Read() Moment
}

// Moment is one reading of both clocks. The hot path takes one per batch.
type Moment struct {
	Wall int64         // milliseconds since the Unix epoch
	Boot time.Duration // since the machine started
}

// Time returns the wall time.
func (m Moment) Time() time.Time { return time.UnixMilli(m.Wall) }

// Deadline is a moment of the boot clock in milliseconds; zero means never. An entry is
// gone from its deadline on.
type Deadline int64

// MaxDeadline is the last deadline that a store can represent (34 years of uptime).
const MaxDeadline Deadline = 1<<40 - 1

// After returns the deadline that lies ttl after now, or zero (no deadline) if ttl is
// zero or less. It rounds up, so that a ttl below 1 ms does not become "never".
func After(now, ttl time.Duration) Deadline {
	if ttl <= 0 {
		return 0
	}
	if ttl > math.MaxInt64-now-time.Millisecond {
		return MaxDeadline
	}
	return min(max(1, Deadline((now+ttl+time.Millisecond-1)/time.Millisecond)), MaxDeadline)
}

// Passed reports whether the deadline has come.
func (d Deadline) Passed(now time.Duration) bool {
	return d != 0 && int64(now) >= int64(d)*int64(time.Millisecond)
}

// Remaining returns the time left, or zero if there is no deadline. For a deadline that
// has passed it returns 1 ns, never zero.
func (d Deadline) Remaining(now time.Duration) time.Duration {
	if d == 0 {
		return 0
	}
	return max(1, time.Duration(d)*time.Millisecond-now)
}

// TTLms returns the time left as it is sent to other hosts and clients: whole
// milliseconds, at least one, and zero for no deadline.
func (d Deadline) TTLms(now time.Duration) int64 {
	if d == 0 {
		return 0
	}
	return max(1, int64(d.Remaining(now)/time.Millisecond))
}

// Before returns the last deadline that is not after a moment of the boot clock, and zero
// for zero.
func Before(end time.Duration) Deadline {
	if end == 0 {
		return 0
	}
	return min(max(1, Deadline(end/time.Millisecond)), MaxDeadline)
}

// Sleep waits for d and returns true. It returns false as soon as ctx is done.
func Sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// Every returns a sequence that goes on each d, and ends as soon as ctx is done. While its caller is late, ticks are
// left out.
func Every(ctx context.Context, d time.Duration) iter.Seq[time.Time] {
	return func(yield func(time.Time) bool) {
		t := time.NewTicker(d)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-t.C:
				if !yield(now) {
					return
				}
			}
		}
	}
}

// SystemClock is the clock of the machine.
//
// A reading of the boot clock costs a system call; the runtime's wall and monotonic
// clocks do not. The monotonic clock differs from the boot clock in one thing: it stops
// while the machine sleeps. Wall time does not stop, so a sleep shows as a jump of the
// wall clock against the monotonic one. Read therefore adds the last known difference of
// boot and monotonic clock to the monotonic clock. It asks the system anew when the wall
// clock has moved against the monotonic clock by more than a millisecond: after a sleep,
// after a step, and every few seconds while the wall clock is being slewed.
type SystemClock struct {
	origin time.Time // with a monotonic reading
	base   atomic.Pointer[clockBase]
}

// clockBase relates the clocks to the monotonic one at some moment.
type clockBase struct {
	wall time.Duration // wall clock less monotonic clock
	boot time.Duration // boot clock less monotonic clock
}

// NewSystemClock returns the clock of the machine.
func NewSystemClock() *SystemClock {
	c := &SystemClock{origin: time.Now()}
	c.rebase()
	return c
}

// clockTolerance is how far the wall clock may move before Read asks the system. It is
// also the largest error of the boot clock.
const clockTolerance = time.Millisecond

// Read returns a Moment.
func (clock *SystemClock) Read() Moment {
	now := time.Now()
	mono := now.Sub(clock.origin)
	wall := time.Duration(now.UnixNano())
	base := clock.base.Load()
	if moved := wall - mono - base.wall; moved > clockTolerance || moved < -clockTolerance {
		base, mono, wall = clock.rebase()
	}
	return Moment{Wall: int64(wall / time.Millisecond), Boot: mono + base.boot}
}

// rebase asks the system for the boot clock. It reads that clock between two readings of
// the monotonic clock that lie close together.
func (clock *SystemClock) rebase() (base *clockBase, mono, wall time.Duration) {
	for {
		before := time.Now()
		boot := bootTime()
		after := time.Now()
		if after.Sub(before) > clockTolerance/2 {
			continue // descheduled in between
		}
		mono, wall = after.Sub(clock.origin), time.Duration(after.UnixNano())
		base = &clockBase{wall: wall - mono, boot: boot - mono}
		clock.base.Store(base)
		return base, mono, wall
	}
}
