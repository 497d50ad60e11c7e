package sched

import "time"

// TimeSlice is how long a reader serves without a rest. At its end the reader yields its
// processor to other threads. Without that the system lets a thread run for milliseconds,
// and another thread with one short request may wait so long, if it has served a flood
// before: the runtime moves readers from thread to thread. If no thread waits, yielding
// costs less than a microsecond. Beside a thread that never rests the reader then has
// less than half of a processor: about a fifth was seen. A reader that gets few requests
// at a time rests before its time slice is over: it finds nothing to read.
type TimeSlice struct {
	parts int       // parts served in this slice
	began time.Time // set after the second part
}

// SliceTime is the length of a slice.
const SliceTime = 250 * time.Microsecond

// Over is called after each part, and says whether the slice is over. Most readers rest
// after the first or second part, so it reads the clock only from then on.
func (t *TimeSlice) Over() bool {
	switch t.parts++; {
	case t.parts == 1:
	case t.parts == 2:
		t.began = time.Now()
	case time.Since(t.began) >= SliceTime:
		t.Restart()
		return true
	}
	return false
}

// Restart begins another slice.
func (t *TimeSlice) Restart() { t.parts = 0 }
