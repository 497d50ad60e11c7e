package ownership

import (
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// A process that is stopped again and again, each time for less than B, and runs
// for too short a time to be heard in between, is held for dead by the others as
// one that is stopped for long. So its gaps add up: see Machine.Gap.
const (
	LookEvery = 64 // the part of the bound after which it is looked for gaps at the latest
	GapAbove  = 16 // a gap above this part of the bound counts, by what exceeds the one above
	SleepOver = 4  // above this part, silence of others during it proves nothing
)

// Stop is time in which a process did not run.
type Stop struct {
	For    time.Duration
	Gaps   int
	Window time.Duration // in which there were more than one
}

func (s Stop) String() string {
	if s.Gaps <= 1 {
		return fmt.Sprintf("%.1f s", s.For.Seconds())
	}
	return fmt.Sprintf("%.1f s of the last %g s, in %d gaps", s.For.Seconds(), s.Window.Seconds(), s.Gaps)
}

// stops are the gaps that end within some time before the last one's end, oldest
// first. Each is longer than a sixteenth of the bound and they do not overlap, so
// there are never many.
type stops struct {
	bound, window time.Duration
	list          []gap
}

type gap struct{ end, length time.Duration }

// add notes a gap that ends now.
func (s *stops) add(now, length time.Duration) {
	from := now - s.window
	s.list = slices.DeleteFunc(s.list, func(g gap) bool { return g.end <= from })
	s.list = append(s.list, gap{now, length})
}

// sum is how much of the window that ends with the last gap was not run in, and
// what of that counts: what exceeds the time within which a gap cannot be told
// from the time between two looks.
func (s *stops) sum() (stop Stop, counts time.Duration) {
	stop.Window = s.window
	for _, g := range s.list {
		in := min(g.length, g.end-(s.list[len(s.list)-1].end-s.window))
		stop.For += in
		stop.Gaps++
		counts += max(0, in-s.bound/LookEvery)
	}
	return stop, counts
}

// clear begins anew.
func (s *stops) clear() { s.list = s.list[:0] }

// Gap is called by whoever finds a gap of more than a part, GapAbove, of the bound
// in the boot clock, before anything else is answered. One of B or more is a
// pause. So are several whose sum within the detection time reaches B, unless
// every member that is not held for dead has answered a poll that was sent within
// B: who has cannot hold this node for dead yet. Where it is a pause, what was
// the stop is returned, and Pause has been called; a node that has never met
// another has nothing that another could have taken.
//
// After a long gap that is no pause, the timers of others' silence go on from
// where they stood: silence counts while the node runs.
func (m *Machine) Gap(now, length time.Duration) (stop Stop, paused bool) {
	m.now = max(m.now, now)
	m.stops.add(m.now, length)
	stop, counts := m.stops.sum()
	if length >= m.cfg.Bound {
		stop, paused = Stop{For: length, Gaps: 1}, true
	} else if counts >= m.cfg.Bound && !failpoint.Out(failpoint.Stutter) {
		paused = m.unanswered() || failpoint.Out(failpoint.Answered)
	}
	if paused && m.met && !failpoint.Out(failpoint.Pause) {
		m.Pause(now)
		return stop, true
	}
	if length > m.cfg.Bound/SleepOver && !failpoint.Out(failpoint.RunningTime) {
		m.slept(length)
	}
	return Stop{}, false
}

// unanswered says whether some member that is not held for dead has answered no
// poll that was sent within B.
func (m *Machine) unanswered() bool {
	for _, o := range m.members {
		if o.live() && m.now-o.askedAt >= m.cfg.Bound {
			return true
		}
	}
	return false
}

// slept moves the timers of others' silence. Leases, authority, votes, polls and
// the time since the process began go by the clock.
func (m *Machine) slept(length time.Duration) {
	move := func(t *time.Duration) { *t = min(*t+length, m.now) }
	for _, o := range m.members {
		move(&o.heardAt)
	}
	move(&m.startedAt)
	move(&m.aloneFrom)
}
