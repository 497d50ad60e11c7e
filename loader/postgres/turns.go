package postgres

import (
	"io"
	"time"
)

// A stream is read in turns, so that it takes at most a quarter of a processor. A server that always brings more
// waits for its window then, and takes no processor either.
const (
	turnEvery = time.Millisecond       // from the beginning of one turn to that of the next
	turnWork  = 250 * time.Microsecond // of a turn
	turnRead  = 4 << 10                // bytes; a read of fewer is the last one of its turn
)

// turnReader reads in turns. A turn ends early when nearly all has been read that had come: to wake up for each row
// of a server that is as fast costs more than to read many of them at once.
type turnReader struct {
	r     io.Reader
	began time.Time // the turn
	last  bool      // its last read has been made
}

func (turn *turnReader) Read(p []byte) (int, error) {
	if took := time.Since(turn.began); turn.last || took >= turnWork {
		time.Sleep(turnEvery - took) // none of it is left if the server has let it wait
		turn.began = time.Now()
	}
	n, err := turn.r.Read(p)
	turn.last = n < turnRead
	return n, err
}
