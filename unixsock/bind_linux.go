package unixsock

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind listens on a path. Its file is nobody's to open but this user's: Linux takes
// the mode of the file from the socket, so that the process's umask can stay as it is.
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
