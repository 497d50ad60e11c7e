package cluster

import (
	"errors"
	"time"
)

// drain is whether this node gives away what it owns.
type drain struct {
	present  *handover // the last one, until this node has come back; nil: it is not drained
	waiting  int       // drains that wait until this node is in
	undone   int       // times that a drain was taken back
	stopping bool      // the handover cannot be taken back any more
}

// handover is a time in which this node gives away what it owns, and takes nothing.
type handover struct {
	HandedOver // Kept and Took are valid once over is closed

	begun   time.Duration // on the boot clock
	returns bool          // this node comes back once others have everything; part of the state
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

// finish ends a handover, unless it has ended before.
func (h *handover) finish(how func()) {
	select {
	case <-h.over:
	default:
		how()
		close(h.over)
	}
}
