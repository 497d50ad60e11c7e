package loader

import (
	"errors"
	"io"
	"net"
	"syscall"
)

var errUnasked = errors.New("the server has sent bytes without a request")

// Idle returns an error if the server has closed a connection of a pool, or has sent bytes that
// nothing asked for. It neither waits nor reads them. A pool asks it before it lends a connection, so
// that a call does not fail because the server has ended an idle connection.
func Idle(c net.Conn) error {
	for {
		over, ok := c.(interface{ NetConn() net.Conn }) // TLS, or a connection with limits
		if !ok {
			break
		}
		c = over.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	var readErr error
	err = raw.Control(func(fd uintptr) {
		n, _, readErr = syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	})
	switch {
	case err != nil:
		return err
	case readErr == syscall.EAGAIN || readErr == syscall.EWOULDBLOCK:
		return nil
	case readErr != nil:
		return readErr
	case n == 0:
		return io.EOF
	}
	return errUnasked
}
