package rpc

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"
)

// socket is the bytes of one connection, plain or TLS. Its reads are in input.
type socket struct {
	nc     net.Conn
	raw    syscall.RawConn // nil if nc is not over a file descriptor
	line   *line           // below nc, if nc is TLS over a file descriptor
	fd     writer          // of the goroutine that writes; one at a time
	unix   bool            // nc is over a Unix socket
	killed atomic.Bool     // ended by kill
	send   sendBuffer      // of a serving connection

	lingers atomic.Bool // its end waits for the peer
}

// init takes over nc. beforeWait is called before a write waits, and returns an error if
// the write must not wait.
func (s *socket) init(nc net.Conn, writeTimeout time.Duration, beforeWait func() error) {
	s.fd.init(writeTimeout, beforeWait)
	s.fd.send = &s.send
	s.nc = nc
	if c, ok := nc.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	s.fd.nc, s.fd.raw = nc, s.raw
	_, s.unix = nc.(*net.UnixConn)
	if c, ok := nc.(*Secured); ok && c.line.adopt(writeTimeout, beforeWait) {
		s.line = c.line
	}
}

// write writes all of b. It fails if the peer takes nothing for the timeout.
func (s *socket) write(b []byte) error {
	if s.line != nil {
		return s.line.write(s.nc, b)
	}
	return s.fd.write(b)
}

// writeNow writes as much of b as is possible without waiting. If the connection is not
// over a file descriptor, it writes nothing. Over TLS some of the n bytes may still wait:
// see behind.
func (s *socket) writeNow(b []byte) (n int, err error) {
	if s.line != nil {
		return s.line.writeNow(s.nc, b)
	}
	return s.fd.writeNow(b)
}

// behind says whether bytes that writeNow has taken wait for the next write. That write
// may be empty.
func (s *socket) behind() bool { return s.line != nil && s.line.behind() }

// wake makes the reads and writes of the connection return. Close would wait for them.
func (s *socket) wake() { _ = s.nc.SetDeadline(time.Unix(1, 0)) }

// wakeReader makes reads return.
func (s *socket) wakeReader() { _ = s.nc.SetReadDeadline(time.Unix(1, 0)) }

// kill ends the connection. Any goroutine may call it.
func (s *socket) kill() {
	s.killed.Store(true)
	s.wake()
}

// closeWrite tells the peer that nothing more comes. It says whether that is possible.
func (s *socket) closeWrite() bool {
	cw, ok := s.nc.(interface{ CloseWrite() error })
	return ok && cw.CloseWrite() == nil
}

// closeRead takes no more bytes from the peer: its next write fails, and what it has sent
// before can still be read. It says whether that is possible, as it is over a Unix socket.
func (s *socket) closeRead() bool {
	c, ok := s.nc.(*net.UnixConn)
	return ok && c.CloseRead() == nil
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
