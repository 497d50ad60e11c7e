package ownership

import (
	"fmt"
	"slices"
	"time"
)

// A process may be stopped again and again, each time for less than B, and run too
// briefly in between to be heard. The others consider it dead, as one that is stopped
// for long. So its stalls add up: see Machine.Stall.
const (
	LookEvery  = 64 // the part of the bound: at least this often stalls are looked for
	StallAbove = 16 // longer stalls count, by their excess over the part above
	SleepOver  = 4  // above this part, silence of others during the stall proves nothing
)

// Stoppage is time in which a process did not run.
type Stoppage struct {
	For    time.Duration
	Stalls int
	Window time.Duration // in which the stalls lie, if there are several
}

func (stop Stoppage) String() string {
	if stop.Stalls <= 1 {
		return fmt.Sprintf("%.1f s", stop.For.Seconds())
	}
	return fmt.Sprintf("%.1f s of the last %g s, in %d gaps", stop.For.Seconds(), stop.Window.Seconds(), stop.Stalls)
}

// stalls are the stalls that end within some time before the end of the last one, oldest
// first. Each is longer than a sixteenth of the bound and they do not overlap, so the
// list stays short.
type stalls struct {
	bound, window time.Duration
	list          []stall
}

type stall struct{ end, length time.Duration }

// add notes a stall that ends now.
func (s *stalls) add(now, length time.Duration) {
	from := now - s.window
	s.list = slices.DeleteFunc(s.list, func(g stall) bool { return g.end <= from })
	s.list = append(s.list, stall{now, length})
}

// sum returns how long the process did not run in the window that ends with the last
// stall, and how much of that counts: the part of each stall above the time between two
// looks, within which a stall cannot be seen.
func (s *stalls) sum() (stop Stoppage, counts time.Duration) {
	stop.Window = s.window
	for _, g := range s.list {
		in := min(g.length, g.end-(s.list[len(s.list)-1].end-s.window))
		stop.For += in
		stop.Stalls++
		counts += max(0, in-s.bound/LookEvery)
	}
	return stop, counts
}

// clear forgets all stalls.
func (s *stalls) clear() { s.list = s.list[:0] }
