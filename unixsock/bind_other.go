//go:build !linux

package unixsock

import (
	"net"
	"syscall"
)

// bind listens on a path. Only this process's user may open the socket's file.
func bind(path string) (*net.UnixListener, error) {
	mask := syscall.Umask(0o177)
	defer syscall.Umask(mask)
	return net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
}
