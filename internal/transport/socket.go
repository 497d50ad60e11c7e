package transport

import (
	"errors"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Socket is the bytes of one connection, plain or TLS. Its reads are in Input.
type Socket struct {
	Conn net.Conn

	raw    syscall.RawConn // nil if Conn is not over a file descriptor
	line   *line           // below Conn, if that is TLS over a file descriptor
	fd     writer          // of the goroutine that writes; one at a time. Over TLS, what line writes
	killed atomic.Bool     // ended by Kill
	send   sendBuffer      // see BoundSend

	lingers atomic.Bool // its end waits for the peer
}

// Init takes over nc. beforeWait is called before a write waits, and returns an error if
// the write must not wait.
func (s *Socket) Init(nc net.Conn, writeTimeout time.Duration, beforeWait func() error) {
	s.Conn = nc
	below := nc
	secured, ok := nc.(*Secured)
	if ok {
		below = secured.line.Conn
	}
	if c, ok := below.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.fd = writer{nc: nc, raw: s.raw, timeout: writeTimeout, beforeWait: beforeWait, send: &s.send}
	s.fd.tryFn = s.fd.try
	if ok && s.raw != nil {
		s.line, secured.line.fd = secured.line, &s.fd
	}
}

// HasDescriptor says whether the connection is plain, and over a file descriptor.
func (s *Socket) HasDescriptor() bool { return s.raw != nil && s.line == nil }

// readNow reads what there is. fd is the connection's descriptor.
func (s *Socket) readNow(fd int, b []byte) (int, error) {
	if s.line != nil {
		return s.line.readNow(s.Conn, fd, b)
	}
	return readNow(fd, b)
}

// Write writes all of b. It fails if the peer takes nothing for the timeout.
func (s *Socket) Write(b []byte) error {
	if s.line != nil {
		return s.line.write(s.Conn, b)
	}
	return s.fd.write(b)
}

// WriteNow writes as much of b as is possible without waiting. If the connection is not
// over a file descriptor, it writes nothing. behind says that, over TLS, some of the n bytes
// wait for the next write, which may be empty.
func (s *Socket) WriteNow(b []byte) (n int, behind bool, err error) {
	if s.line != nil {
		n, err = s.line.writeNow(s.Conn, b)
		return n, s.line.behind(), err
	}
	n, err = s.fd.writeNow(b)
	return n, false, err
}

// Unwritten returns how many bytes the last write has left, if it has failed. Over TLS that is not known.
func (s *Socket) Unwritten() int {
	if s.line != nil {
		return 0
	}
	return s.fd.unsent
}

// Wake makes the reads and writes of the connection return. Close would wait for them.
func (s *Socket) Wake() { _ = s.Conn.SetDeadline(time.Unix(1, 0)) }

// WakeReader makes reads return.
func (s *Socket) WakeReader() { _ = s.Conn.SetReadDeadline(time.Unix(1, 0)) }

// Kill ends the connection. Any goroutine may call it.
func (s *Socket) Kill() {
	s.killed.Store(true)
	s.Wake()
}

// Killed says whether Kill has been called.
func (s *Socket) Killed() bool { return s.killed.Load() }

// CloseWrite tells the peer that nothing more comes. It says whether that is possible.
func (s *Socket) CloseWrite() bool {
	cw, ok := s.Conn.(interface{ CloseWrite() error })
	return ok && cw.CloseWrite() == nil
}

// CloseRead takes no more bytes from the peer: its next write fails, and what it has sent
// before can still be read. It says whether that is possible, as it is over a Unix socket.
func (s *Socket) CloseRead() bool {
	c, ok := s.Conn.(*net.UnixConn)
	return ok && c.CloseRead() == nil
}

// closeBoth tells the peer that nothing more comes, and takes nothing more from it.
func (s *Socket) closeBoth() error {
	err := error(nil)
	if e := s.raw.Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) }); e != nil {
		return e
	}
	return err
}

// AtEnd says whether nothing is left to read but the end of the stream, or an error. The kernel tells
// an error once: after a reset the next read finds the end.
func (s *Socket) AtEnd() (end bool) {
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			end = n <= 0 && err != unix.EAGAIN && err != unix.EINTR
		})
	}
	return end
}

// HungUp says whether the peer has closed the connection, or this side has.
func (s *Socket) HungUp() (gone bool) {
	if runtime.GOOS != "linux" || s.raw == nil { // elsewhere a peer that sends nothing more may look the same
		return false
	}
	err := s.raw.Control(func(fd uintptr) {
		list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(list, 0)
		gone = n == 1 && err == nil && list[0].Revents&unix.POLLHUP != 0
	})
	return gone || err != nil // an error: it is closed
}

// IsTimeout says whether err is that of a deadline.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// writer writes to a file descriptor. It sets a deadline only for a write that would
// block, and extends it when the peer has taken something. One goroutine at a time uses
// it.
type writer struct {
	nc         net.Conn
	raw        syscall.RawConn // nil if nc is not over a file descriptor
	timeout    time.Duration
	beforeWait func() error // called before a write waits, after its deadline is set
	send       *sendBuffer

	rest    []byte
	unsent  int // bytes that the last write has left, if it has failed
	left    int // length of rest when the deadline was set
	err     error
	timed   bool // a deadline is set
	lastTry bool // the deadline has passed: try once more
	now     bool // do not wait
	tryFn   func(fd uintptr) bool
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

// Answers collects the answers to calls that came in one read, and the connections that wait to
// write them.
type Answers struct {
	Frame []byte // of the answer; its buffer is reused for the next one

	writers []Writer
}

// Writer writes what waits for a connection, as far as that is possible without waiting.
type Writer interface{ WriteNow() }

// Add makes Write call w.
func (a *Answers) Add(w Writer) { a.writers = append(a.writers, w) }

// Write makes the writers write, in the order in which they were added.
func (a *Answers) Write() {
	for _, w := range a.writers {
		w.WriteNow()
	}
	clear(a.writers)
	a.writers = a.writers[:0]
}
