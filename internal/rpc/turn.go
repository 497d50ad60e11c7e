package rpc

import "time"

// turn is how long a reader serves without a rest. At its end the reader yields its
// processor to other threads. Without that the system lets a thread run for milliseconds,
// and another thread with one short request may wait so long, if it has served a flood
// before: the runtime moves readers from thread to thread. If no thread waits, yielding
// costs less than a microsecond. Beside a thread that never rests the reader then has
// less than half of a processor: about a fifth was seen. A reader that gets few requests
// at a time rests before its turn is over: it finds nothing to read, or lets another
// reader go first.
type turn struct {
	parts int       // parts served in this turn
	began time.Time // set after the second part
}

const (
	turnTime  = 250 * time.Microsecond
	partBytes = 16 << 10 // of requests in a part; a part has at least one request
)

// partServed is called after each part, and says whether the turn is over. Most readers rest
// after the first or second part, so it reads the clock only from then on.
func (t *turn) partServed() (over bool) {
	switch t.parts++; {
	case t.parts == 1:
	case t.parts == 2:
		t.began = time.Now()
	case time.Since(t.began) >= turnTime:
		t.restart()
		return true
	}
	return false
}

// restart begins another turn.
func (t *turn) restart() { t.parts = 0 }
