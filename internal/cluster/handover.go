package cluster

import (
	"errors"
	"time"
)

// handover is a time in which this node gives away what it owns, and takes nothing.
type handover struct {
	HandedOver // Kept and Took are valid once over is closed

	begun   time.Duration // on the boot clock
	returns bool          // this node comes back once others have everything; guarded by the driver's lock
	over    chan struct{} // closed when it is over, in one way or another
	undone  bool          // valid once over is closed
}

// HandedOver says what became of the partitions that a node owned when it was drained.
type HandedOver struct {
	Owned int // at the beginning
	Kept  int // others have not taken them in time
	Took  time.Duration
}

// Errors of a drain.
var (
	ErrNoHeir   = errors.New("no other host is there to take over what this one owns")
	ErrNotIn    = errors.New("this host has not come into its cluster yet")
	ErrUndone   = errors.New("the drain was undone")
	ErrStopping = errors.New("this sidecar is stopping")
)

// end ends a handover, unless it has ended before. The driver's lock is held.
func (h *handover) end(how func()) {
	select {
	case <-h.over:
	default:
		how()
		close(h.over)
	}
}
