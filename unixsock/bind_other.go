//go:build !linux

package unixsock

import (
	"net"
	"syscall"
)

// bind listens on a path. Its file is nobody's to open but this user's.
func bind(path string) (*net.UnixListener, error) {
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
