package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// The driver's view of its own clock: a stall between two readings of the boot clock is a
// time in which this process did not run.

// checkPause is Node.CheckPause.
func (d *driver) checkPause(now time.Duration) {
	d.markRunning(now)
	if int64(now) >= d.dueAt.Load() {
		d.tick(now)
	}
}

// markRunning records that the process runs. Only a stall that counts takes the lock. What
// the stall ends has ended before lastSeen moves; a caller that finds the same stall
// meanwhile waits for the lock.
func (d *driver) markRunning(now time.Duration) {
	last := d.lastSeen.Load()
	stall := now - time.Duration(last)
	if stall <= d.cfg.Bound/ownership.LookEvery { // not each time: other goroutines read it
		return
	}
	if stall > d.cfg.MaxSkew/2 {
		d.lastStop.Store(&standstill{now, stall})
	}
	if stall > d.cfg.Bound/ownership.StallAbove {
		d.closeStall()
	} else {
		d.lastSeen.CompareAndSwap(last, int64(now))
	}
}

// closeStall adds a stall to those before and ends what must end, unless another caller has
// done so already.
func (d *driver) closeStall() {
	if failpoint.Out(failpoint.GapLocked) {
		d.closeStallUnlocked()
		return
	}
	d.withState(func(s *state) {
		now := d.cfg.Clock.Read().Boot
		s.judgeStall(now, now-time.Duration(d.lastSeen.Load()))
		d.lastSeen.Store(int64(now))
	})
}

// closeStallUnlocked is closeStall without its guard, for a failpoint: the second caller
// sees no stall although what the first one must end has not ended yet.
func (d *driver) closeStallUnlocked() {
	now := d.cfg.Clock.Read().Boot
	length := now - time.Duration(d.lastSeen.Swap(int64(now)))
	failpoint.At(failpoint.GapFound)
	d.withState(func(s *state) { s.judgeStall(now, length) })
}

// lookForStalls finds the stalls in which this process did not run, even when little else
// happens. It takes no lock until it has found one, so that a busy lock does not hide one; or
// until a feed is late.
func (d *driver) lookForStalls(ctx context.Context) {
	for range kv.Every(ctx, d.cfg.Bound/ownership.LookEvery) {
		d.look()
	}
}

// look looks for a stall, and tells the mirror that there was none.
func (d *driver) look() {
	m := d.cfg.Mirror
	mark := m.Running()
	now := d.cfg.Clock.Read().Boot
	d.checkPause(now)
	// Under policy consistent an authority lasts until it lapses, whatever others say.
	m.Ran(mark, min(now, time.Duration(d.lapseAt.Load())-d.cfg.Bound))
}

// standstill is a time in which this process did not run.
type standstill struct{ ended, length time.Duration }

// causedByStandstill reports whether another clock seems behind only because this
// process did not run: the message that it reads now was written during the standstill.
func (d *driver) causedByStandstill(err error) bool {
	var e *peer.SkewError
	if !errors.As(err, &e) || e.Ahead > 0 {
		return false
	}
	now := d.cfg.Clock.Read().Boot
	d.checkPause(now) // finds the standstill, if nothing else has
	s := d.lastStop.Load()
	return s != nil && now-s.ended < d.cfg.Bound/2 && e.Behind <= s.length+d.cfg.MaxSkew
}
