package rpc

import "time"

// turn is how long a reader serves without a rest. At its end the reader lets other
// threads have its processor: the system lets a thread run for milliseconds, and so long
// another may wait that has one short request, if it has served a flood before, since the
// runtime hands readers from thread to thread. Where none waits that costs less than a
// microsecond. Beside a thread that never rests the reader then has less than half of a
// processor: about a fifth was seen. A reader that is asked for little at a time rests
// before its turn is over: it finds nothing to read, or lets another reader go first.
type turn struct {
	parts int       // that were served in it
	began time.Time // once there were two
}

const (
	turnTime  = 250 * time.Microsecond
	partBytes = 16 << 10 // of requests in a part, which has one at least
)

// served is called after each part, and says whether the turn is over. Most readers rest
// after the first part or the second: only then the time is looked at.
func (t *turn) served() (over bool) {
	switch t.parts++; {
	case t.parts == 1:
	case t.parts == 2:
		t.began = time.Now()
	case time.Since(t.began) >= turnTime:
		t.rest()
		return true
	}
	return false
}

// rest begins another turn.
func (t *turn) rest() { t.parts = 0 }
