package loader

import "fmt"

// ErrNoRoom means that there is no memory for the answer of an origin. It is an ErrBusy, but the
// origin was asked.
var ErrNoRoom = fmt.Errorf("%w: there is no memory for its answer: ask for fewer long values at a time, "+
	"or raise buffer_size", ErrBusy)

// Memory bounds the bytes of origins' answers that are under way.
type Memory interface {
	// Take charges n bytes, before they are read, or returns false.
	Take(n int) bool
	// Give gives n bytes back.
	Give(n int)
}

// Room is the memory of one answer. It is for one goroutine. A Room without a Memory has no bound.
type Room struct {
	Memory Memory
	has    int // bytes charged
}

// shortPart is the longest part of an answer that is not charged, in bytes: a call itself needs
// more.
const shortPart = 4 << 10

// Take charges n more bytes, or returns ErrNoRoom.
func (r *Room) Take(n int) error {
	if r.Memory == nil || n <= shortPart {
		return nil
	}
	if !r.Memory.Take(n) {
		return ErrNoRoom
	}
	r.has += n
	return nil
}

// Free gives all back.
func (r *Room) Free() {
	if r.has > 0 {
		r.Memory.Give(r.has)
		r.has = 0
	}
}
