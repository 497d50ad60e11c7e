package loader

import "fmt"

// ErrNoMemory means that there is no memory for the answer of an origin. It is an ErrBusy, but the
// origin was asked.
var ErrNoMemory = fmt.Errorf("%w: there is no memory for its answer: ask for fewer long values at a time, "+
	"or raise buffer_size", ErrBusy)

// Memory bounds the bytes of origins' answers that are under way.
type Memory interface {
	// Take charges n bytes, before they are read, or returns false.
	Take(n int) bool
	// Give gives n bytes back.
	Give(n int)
}

// Reservation is the memory of one answer. It is for one goroutine. One without a Memory has no bound.
type Reservation struct {
	Memory Memory
	has    int // bytes charged
}

// shortPart is the longest part of an answer that is not charged, in bytes: a call itself needs
// more.
const shortPart = 4 << 10

// Take charges n more bytes, or returns ErrNoMemory.
func (r *Reservation) Take(n int) error {
	if r.Memory == nil || n <= shortPart {
		return nil
	}
	if !r.Memory.Take(n) {
		return ErrNoMemory
	}
	r.has += n
	return nil
}

// Free gives all back.
func (r *Reservation) Free() {
	if r.has > 0 {
		r.Memory.Give(r.has)
		r.has = 0
	}
}
