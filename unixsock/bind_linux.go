package unixsock

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind listens on a path. Only this process's user may open the socket's file: Linux
// takes the file's mode from the socket, so the process's umask does not have to change.
func bind(path string) (*net.UnixListener, error) {
	lc := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var inner error
		if err := raw.Control(func(fd uintptr) { inner = unix.Fchmod(int(fd), 0o600) }); err != nil {
			return err
		}
		return inner
	}}
	ln, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	return ln.(*net.UnixListener), nil
}
