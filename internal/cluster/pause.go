package cluster

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// The driver's view of its own clock: a gap between two readings of the boot clock is a
// time in which this process did not run.

// checkPause is Node.CheckPause.
func (d *driver) checkPause(now time.Duration) {
	d.markRunning(now)
	if int64(now) >= d.lapseAt.Load() {
		d.tick(now)
	}
}

// markRunning records that the process runs. Only a gap that counts takes the lock. What
// the gap ends has ended before lastSeen moves; a caller that finds the same gap
// meanwhile waits for the lock.
func (d *driver) markRunning(now time.Duration) {
	last := d.lastSeen.Load()
	gap := now - time.Duration(last)
	if gap <= d.cfg.Bound/ownership.LookEvery { // not each time: other goroutines read it
		return
	}
	if gap > d.cfg.MaxSkew/2 {
		d.lastStop.Store(&standstill{now, gap})
	}
	if gap > d.cfg.Bound/ownership.GapAbove {
		d.closeGap()
	} else {
		d.lastSeen.CompareAndSwap(last, int64(now))
	}
}

// closeGap adds a gap to those before and ends what must end, unless another caller has
// done so already.
func (d *driver) closeGap() {
	if failpoint.Out(failpoint.GapLocked) {
		d.closeGapUnlocked()
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.cfg.Clock.Read().Boot
	d.judgeGap(now, now-time.Duration(d.lastSeen.Load()))
	d.lastSeen.Store(int64(now))
}

// closeGapUnlocked is closeGap without its guard, for a failpoint: the second caller
// sees no gap although what the first one must end has not ended yet.
func (d *driver) closeGapUnlocked() {
	now := d.cfg.Clock.Read().Boot
	length := now - time.Duration(d.lastSeen.Swap(int64(now)))
	failpoint.At(failpoint.GapFound)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.judgeGap(now, length)
}

// judgeGap tells the machine about a gap, and ends all leases if the gap is a pause.
// d.mu is held.
func (d *driver) judgeGap(now, length time.Duration) {
	if length <= d.cfg.Bound/ownership.GapAbove {
		return
	}
	d.counts.stopped.Add(int64(length))
	if d.cfg.Bind == "" { // no other node can ever own what this one has
		return
	}
	stop, paused := d.machine.Gap(now, length)
	if paused {
		d.counts.pauses.Add(1)
		d.cfg.Log.Warn("this process did not run for "+stop.String(), "given_up", d.owned().Len())
		for _, o := range d.owners {
			o.endLease()
		}
		if d.cfg.Mirror != nil {
			d.cfg.Mirror.Paused()
		}
	}
	d.carryOut()
}

// lookForGaps finds the gaps in which this process did not run, even when little else
// happens. It takes no lock until it has found a gap, so that a busy lock does not hide
// one.
func (d *driver) lookForGaps(ctx context.Context) {
	t := time.NewTicker(d.cfg.Bound / ownership.LookEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			d.look()
		}
	}
}

// look looks for a gap, and tells the mirror that there was none.
func (d *driver) look() {
	m := d.cfg.Mirror
	if m == nil {
		d.markRunning(d.cfg.Clock.Read().Boot)
		return
	}
	mark := m.Running()
	now := d.cfg.Clock.Read().Boot
	d.markRunning(now)
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
