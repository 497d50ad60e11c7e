package transport

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// writer writes to a file descriptor. It sets a deadline only for a write that would
// block, and extends it when the peer has taken something. One goroutine at a time uses
// it.
type writer struct {
	nc         net.Conn
	raw        syscall.RawConn // nil if nc is not over a file descriptor
	timeout    time.Duration
	beforeWait func() error // called before a write waits, after its deadline is set
	send       *sendBuffer  // nil: the system decides

	rest    []byte
	unsent  int // bytes that the last write has left, if it has failed
	left    int // length of rest when the deadline was set
	err     error
	timed   bool // a deadline is set
	lastTry bool // the deadline has passed: try once more
	now     bool // do not wait
	tryFn   func(fd uintptr) bool
}

// init prepares a writer. Its owner sets nc and raw.
func (w *writer) init(timeout time.Duration, beforeWait func() error) {
	w.timeout, w.beforeWait, w.tryFn = timeout, beforeWait, w.try
}

// write writes all of b. It fails if the peer takes nothing for the timeout. The system
// reports room only when a good part of the socket's buffer is free. The peer may have
// taken less by the deadline, so write tries once more before it fails.
func (w *writer) write(b []byte) error {
	if w.raw == nil {
		return w.writeBlind(b)
	}
	w.rest, w.left, w.err = b, len(b), nil
	err := w.raw.Write(w.tryFn)
	for errors.Is(err, os.ErrDeadlineExceeded) {
		w.lastTry = true
		if err = w.untime(); err == nil {
			err = w.raw.Write(w.tryFn)
		}
	}
	w.unsent, w.rest, w.lastTry = len(w.rest), nil, false
	if w.timed {
		if e := w.untime(); err == nil {
			err = e
		}
	}
	if err == nil {
		err = w.err
	}
	return err
}

// untime removes the deadline.
func (w *writer) untime() error {
	w.timed = false
	return w.nc.SetWriteDeadline(time.Time{})
}

// writeBlind is write for a connection that does not show, before the timeout, whether a
// write waits or what the peer has taken.
func (w *writer) writeBlind(b []byte) error {
	for {
		if err := w.nc.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
			return err
		}
		if err := w.beforeWait(); err != nil {
			return err
		}
		n, err := w.nc.Write(b)
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		b = b[n:]
	}
}

// writeNow writes as much of b as is possible without waiting. If nc is not over a file
// descriptor, it writes nothing.
func (w *writer) writeNow(b []byte) (n int, err error) {
	if w.raw == nil {
		return 0, nil
	}
	w.rest, w.err, w.now = b, nil, true
	err = w.raw.Write(w.tryFn)
	n = len(b) - len(w.rest)
	w.unsent, w.rest, w.now = len(w.rest), nil, false
	if err == nil {
		err = w.err
	}
	return n, err
}

func (w *writer) try(fd uintptr) bool {
	if !w.send.fits(len(w.rest)) {
		w.send.grow(int(fd), len(w.rest))
	}
	for len(w.rest) > 0 {
		n, err := writeNow(int(fd), w.rest)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN && w.send.grow(int(fd), len(w.rest)):
		case err == syscall.EAGAIN:
			return w.now || !w.beginWait()
		case err != nil:
			w.err = err
			return true
		default:
			w.rest = w.rest[n:]
		}
	}
	return true
}

// beginWait says whether the write is to wait, and sets its deadline. Ending the
// connection sets a deadline in the past, which beginWait may overwrite. beforeWait is
// called after that and reports the end.
func (w *writer) beginWait() bool {
	taken := len(w.rest) < w.left
	switch {
	case w.lastTry && !taken:
		w.err = os.ErrDeadlineExceeded
	case taken || !w.timed:
		w.timed, w.left = true, len(w.rest)
		w.err = w.nc.SetWriteDeadline(time.Now().Add(w.timeout))
	}
	w.lastTry = false
	if w.err == nil {
		w.err = w.beforeWait()
	}
	return w.err == nil
}
