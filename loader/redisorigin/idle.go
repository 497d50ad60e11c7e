package redisorigin

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// idle returns an error if the server has closed the connection, or has sent bytes that
// nothing asked for.
func idle(c net.Conn) error {
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
	if err := raw.Read(func(fd uintptr) bool {
		n, readErr = syscall.Read(int(fd), make([]byte, 1))
		return true // it does not wait for bytes
	}); err != nil {
		return err
	}
	switch {
	case readErr == syscall.EAGAIN || readErr == syscall.EWOULDBLOCK:
		return nil
	case readErr != nil:
		return readErr
	case n == 0:
		return io.EOF
	}
	return errors.New("the server has sent bytes without a request")
}
