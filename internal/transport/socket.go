package transport

import (
	"errors"
	"net"
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
	fd     writer          // of the goroutine that writes; one at a time
	killed atomic.Bool     // ended by Kill
	send   sendBuffer      // see BoundSend

	lingers atomic.Bool // its end waits for the peer
}

// Init takes over nc. beforeWait is called before a write waits, and returns an error if
// the write must not wait.
func (s *Socket) Init(nc net.Conn, writeTimeout time.Duration, beforeWait func() error) {
	s.fd.init(writeTimeout, beforeWait)
	s.fd.send = &s.send
	s.Conn = nc
	if c, ok := nc.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.fd.nc, s.fd.raw = nc, s.raw
	if c, ok := nc.(*Secured); ok && c.line.adopt(writeTimeout, beforeWait) {
		s.line = c.line
	}
}

// HasDescriptor says whether the connection is plain, and over a file descriptor.
func (s *Socket) HasDescriptor() bool { return s.raw != nil }

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

// Unwritten returns how many bytes the last write has left, if it has failed.
func (s *Socket) Unwritten() int { return s.fd.unsent }

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
	if runtime.GOOS != "linux" { // elsewhere a peer that sends nothing more may look the same
		return false
	}
	nc := s.Conn
	if s.line != nil {
		nc = s.line.Conn
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			list := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(list, 0)
			gone = n == 1 && err == nil && list[0].Revents&unix.POLLHUP != 0
		})
	}
	return gone || err != nil // an error: it is closed
}

// IsTimeout says whether err is that of a deadline.
func IsTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
