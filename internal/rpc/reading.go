package rpc

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"syscall"
)

// looks is how often a reader that has answered a small batch yields to other goroutines
// and looks for the next batch before it waits for the poller. Among several peers that
// send one request at a time, its own peer has sent the next request by then, and both
// sides are spared a wake-up. A look that finds nothing costs half a microsecond. A peer
// that pipelines has more on its way, and looks would favour it over others, so there is
// none after a large batch. If no other input is served, there is no goroutine to yield
// to: the runtime would wake a second thread to look for work, on the processor that the
// peer wants.
const (
	looks      = 4
	lookBelow  = 1 << 10 // bytes of a batch
	aloneAfter = 8       // batches in a row
)

var (
	lastReader atomic.Uint64 // the number of the input of this process that has read last
	inputs     atomic.Uint64 // made so far
)

// inCompany says whether other inputs have read lately.
func (in *input) inCompany() bool {
	if lastReader.Load() == in.number {
		in.inRow++
	} else {
		lastReader.Store(in.number)
		in.inRow = 0
	}
	return in.inRow < aloneAfter
}

// nudge is called while in is busy.
func (in *input) nudge(l *lookout) {
	if in.inRow < aloneAfter {
		l.nudge()
	} else {
		in.busyAt = l.nudgeAlone(in.busyAt)
	}
}

// readEach reads whenever there are bytes and calls batch with their number, until either
// fails. batch leaves room in the buffer.
//
// Over a file descriptor all of that happens inside one call of the raw read, so that the
// input itself decides when to wait: see looks.
func (in *input) readEach(batch func(n int) error) error {
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
func (in *input) tryRead(fd uintptr) bool {
	left := 0 // looks
	in.busy, in.busyAt = 0, 0
	in.turn.restart()
	for {
		in.acquire()
		n, err := readNow(int(fd), in.buf[in.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN && left > 0:
			left--
			runtime.Gosched()
			continue
		case err == syscall.EAGAIN:
			if in.release(); in.r == in.w {
				return false
			}
			in.rerr = in.onWait()
			return in.rerr != nil
		case err != nil:
			in.rerr = err
			return true
		case n == 0:
			in.rerr = io.EOF
			return true
		}
		in.w += n
		if in.rerr = in.onBatch(n); in.rerr != nil {
			return true
		}
		if in.answered && in.inCompany() && n < lookBelow {
			left = looks - 1
			in.turn.restart()
			runtime.Gosched()
		}
	}
}

// readReady reads once from a descriptor with something to read. It returns 0 if there was
// nothing after all.
func (in *input) readReady(fd int) (int, error) {
	in.busy = 0
	in.turn.restart()
	in.acquire()
	for {
		n, err := readNow(fd, in.buf[in.w:])
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			in.release()
			return 0, nil
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		}
		in.w += n
		return n, nil
	}
}

// readBlind is readEach for a connection that does not show whether there are bytes.
func (in *input) readBlind(batch func(n int) error) error {
	first := make([]byte, firstRead)
	for {
		if in.r < in.w {
			if err := in.onWait(); err != nil {
				return err
			}
		}
		n, err := in.readSome(first)
		if n > 0 {
			err = batch(n)
		}
		if err != nil {
			return err
		}
	}
}

// readSecured is readEach over TLS.
func (in *input) readSecured(batch func(n int) error) error {
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
			in.busy, in.busyAt, line.rested = 0, 0, false
			in.turn.restart()
		}
		if idle && n == len(first) && err == nil {
			more, e := in.readMore()
			n, err = n+more, e
		}
		if n > 0 {
			if e := batch(n); e != nil || err == nil {
				err = e
			}
		}
		if err != nil {
			return err
		}
		if in.answered && in.inCompany() && n < lookBelow {
			line.looks = looks - 1
			in.turn.restart()
			runtime.Gosched()
		}
	}
}

// readMore reads the rest of the current TLS record.
func (in *input) readMore() (n int, err error) {
	line := in.socket.line
	line.noWait = true
	n, err = in.socket.nc.Read(in.buf[in.w:])
	line.noWait = false
	in.w += n
	if errors.Is(err, errNothing) {
		err = nil
	}
	return n, err
}
