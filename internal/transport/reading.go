package transport

import (
	"errors"
	"io"
	"syscall"
)

// A reader that has read much of a frame that is not complete yields to other threads, and looks
// for more of it, so many times before it waits. The rest of a long frame is on its way, and a
// reader that waits comes back only behind all others that are ready.
const (
	looks     = 8
	looksFrom = 16 << 10 // bytes that a read has brought
)

// ReadEach reads whenever there are bytes and calls batch with their number, until either
// fails. batch leaves room in the buffer.
//
// Over a file descriptor all of that happens inside one call of the raw read, so that the
// Input itself decides when to wait.
func (in *Input) ReadEach(batch func(n int) error) error {
	switch {
	case in.socket.line != nil:
		return in.readSecured(batch)
	case in.socket.raw == nil:
		return in.readBlind(batch)
	}
	in.onBatch = batch
	in.rerr = nil
	if err := in.socket.raw.Read(in.readFn); err != nil {
		return err
	}
	return in.rerr
}

// tryRead reads and serves until there is nothing left to read.
func (in *Input) tryRead(fd uintptr) bool {
	left := 0 // looks
	in.batches = 0
	for {
		in.acquire()
		room := in.buf[in.w:]
		n, err := readNow(int(fd), room)
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && left > 0:
			left--
			Yield()
			continue
		case err == syscall.EAGAIN:
			return !in.mayRest()
		case err != nil:
			in.rerr = err
			return true
		case n == 0:
			in.rerr = io.EOF
			return true
		}
		in.w += n
		in.batches++
		if in.rerr = in.onBatch(n); in.rerr != nil {
			return true
		}
		if left = 0; n >= looksFrom && in.r < in.w {
			left = looks
		} else if n < len(room) && in.Once && !in.ended.Load() {
			return !in.mayRest()
		}
	}
}

// mayRest says whether the reader may wait for more, or sets rerr.
func (in *Input) mayRest() bool {
	if in.Release(); in.r < in.w {
		in.rerr = in.onWait()
	}
	return in.rerr == nil
}

// readBlind is ReadEach for a connection that does not show whether there are bytes.
func (in *Input) readBlind(batch func(n int) error) error {
	first := make([]byte, firstRead)
	for {
		if in.r < in.w {
			if err := in.onWait(); err != nil {
				return err
			}
		}
		n, err := in.readSome(first)
		if n > 0 {
			in.batches = 1
			err = batch(n)
		}
		if err != nil {
			return err
		}
	}
}

// readSecured is ReadEach over TLS.
func (in *Input) readSecured(batch func(n int) error) error {
	first, line := make([]byte, firstRead), in.socket.line
	for {
		if in.r < in.w { // the read may wait
			if err := in.onWait(); err != nil {
				return err
			}
		}
		idle := in.buf == nil
		n, err := in.readSome(first)
		if line.rested {
			in.batches, line.rested = 0, false
		}
		if idle && n == len(first) && err == nil {
			more, e := in.readMore()
			n, err = n+more, e
		}
		if n > 0 {
			in.batches++
			if e := batch(n); e != nil || err == nil {
				err = e
			}
		}
		if err != nil {
			return err
		}
		if line.looks = 0; n >= looksFrom && in.r < in.w {
			line.looks = looks
		}
	}
}

// readMore reads the rest of the current TLS record.
func (in *Input) readMore() (n int, err error) {
	line := in.socket.line
	line.noWait = true
	n, err = in.socket.Conn.Read(in.buf[in.w:])
	line.noWait = false
	in.w += n
	if errors.Is(err, errNothing) {
		err = nil
	}
	return n, err
}
