package rpc

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// End is the end of a connection, for requests that wait: see EndOf.
type End Conn

// EndOf returns the end of a connection.
func EndOf(c *Conn) *End { return (*End)(c) }

// Ended says whether the connection's client has gone, or this host has ended the connection:
// no answer can come to the client any more. It asks the operating system, since the reader
// may have had no time yet to find out. A client that only sends nothing more has not gone.
// Over TCP a client that has closed its connection looks like that one, until it refuses an
// answer. Any goroutine may call Ended, also after the connection has been closed.
func (e *End) Ended() bool {
	return e.socket.killed.Load() || e.outbox.failure() != nil || e.socket.hungUp()
}

// Waited says whether the reader of a connection has had to wait since it has read the
// requests at hand. Only the reader calls it.
func Waited(c *Conn) bool { return c.outbox.waited }

// Lost says whether an answer of a connection could not be written. Nothing more is served then.
// Only the reader calls it.
func Lost(c *Conn) bool { return c.lost != nil }

// atEnd says whether nothing is left to read but the end of the stream, or an error. The kernel tells
// an error once: after a reset the next read finds the end.
func (s *socket) atEnd() (end bool) {
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) {
			n, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
			end = n <= 0 && err != unix.EAGAIN && err != unix.EINTR
		})
	}
	return end
}

// hungUp says whether the peer has closed the connection, or this side has.
func (s *socket) hungUp() (gone bool) {
	if runtime.GOOS != "linux" { // elsewhere a peer that sends nothing more may look the same
		return false
	}
	nc := s.nc
	if s.line != nil {
		nc = s.line.Conn
	}
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { gone = hungUp(fd) })
	}
	return gone || err != nil // an error: it is closed
}
