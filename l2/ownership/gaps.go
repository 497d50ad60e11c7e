package ownership

import (
	"fmt"
	"slices"
	"time"
)

// A process may be stopped again and again, each time for less than B, and run too
// briefly in between to be heard. The others consider it dead, as one that is stopped
// for long. So its gaps add up: see Machine.Gap.
const (
	LookEvery = 64 // the part of the bound: at least this often gaps are looked for
	GapAbove  = 16 // longer gaps count, by their excess over the part above
	SleepOver = 4  // above this part, silence of others during the gap proves nothing
)

// Stoppage is time in which a process did not run.
type Stoppage struct {
	For    time.Duration
	Gaps   int
	Window time.Duration // in which the gaps lie, if there are several
}

func (s Stoppage) String() string {
	if s.Gaps <= 1 {
		return fmt.Sprintf("%.1f s", s.For.Seconds())
	}
	return fmt.Sprintf("%.1f s of the last %g s, in %d gaps", s.For.Seconds(), s.Window.Seconds(), s.Gaps)
}

// gaps are the gaps that end within some time before the end of the last one, oldest
// first. Each is longer than a sixteenth of the bound and they do not overlap, so the
// list stays short.
type gaps struct {
	bound, window time.Duration
	list          []gap
}

type gap struct{ end, length time.Duration }

// add notes a gap that ends now.
func (s *gaps) add(now, length time.Duration) {
	from := now - s.window
	s.list = slices.DeleteFunc(s.list, func(g gap) bool { return g.end <= from })
	s.list = append(s.list, gap{now, length})
}

// sum returns how long the process did not run in the window that ends with the last
// gap, and how much of that counts: the part of each gap above the time between two
// looks, within which a gap cannot be seen.
func (s *gaps) sum() (stop Stoppage, counts time.Duration) {
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
func (s *gaps) clear() { s.list = s.list[:0] }
