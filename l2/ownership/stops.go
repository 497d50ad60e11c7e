package ownership

import (
	"fmt"
	"slices"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// A process may be stopped again and again, each time for less than B, and run too
// briefly in between to be heard. The others consider it dead, as one that is stopped
// for long. So its gaps add up: see Machine.Gap.
const (
	LookEvery = 64 // the part of the bound: at least this often gaps are looked for
	GapAbove  = 16 // longer gaps count, by their excess over the part above
	SleepOver = 4  // above this part, silence of others during the gap proves nothing
)

// Stop is time in which a process did not run.
type Stop struct {
	For    time.Duration
	Gaps   int
	Window time.Duration // in which the gaps lie, if there are several
}

func (s Stop) String() string {
	if s.Gaps <= 1 {
		return fmt.Sprintf("%.1f s", s.For.Seconds())
	}
	return fmt.Sprintf("%.1f s of the last %g s, in %d gaps", s.For.Seconds(), s.Window.Seconds(), s.Gaps)
}

// stops are the gaps that end within some time before the end of the last one, oldest
// first. Each is longer than a sixteenth of the bound and they do not overlap, so the
// list stays short.
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

// sum returns how long the process did not run in the window that ends with the last
// gap, and how much of that counts: the part of each gap above the time between two
// looks, within which a gap cannot be seen.
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

// clear forgets all gaps.
func (s *stops) clear() { s.list = s.list[:0] }

// Gap takes a gap in the boot clock of more than the part GapAbove of the bound. It
// must be called before anything else is answered. A gap of B or more is a pause.
// Several gaps are a pause if their sum within the detection time reaches B, unless
// every member that is not considered dead has answered a poll that was sent within
// B: such a member cannot consider this node dead yet. In case of a pause, Gap has
// called Pause and returns the stop. A node that has never met another does not
// pause: no other node can have taken anything from it.
//
// After a long gap that is no pause, the timers of others' silence continue from
// where they stood: silence counts only while the node runs.
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

// unanswered says whether some member that is not considered dead has answered no
// poll that was sent within B.
func (m *Machine) unanswered() bool {
	for _, o := range m.members {
		if o.live() && m.now-o.askedAt >= m.cfg.Bound {
			return true
		}
	}
	return false
}

// slept moves the timers of others' silence. Leases, authority, votes, polls and the
// time since the process began follow the clock.
func (m *Machine) slept(length time.Duration) {
	move := func(t *time.Duration) { *t = min(*t+length, m.now) }
	for _, o := range m.members {
		move(&o.heardAt)
	}
	move(&m.startedAt)
	move(&m.aloneFrom)
}
