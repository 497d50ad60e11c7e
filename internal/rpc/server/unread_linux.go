package server

import "golang.org/x/sys/unix"

// unread returns what the peer of a Unix socket has not read, in bytes; zero if it has closed its
// end.
func unread(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return 0
	}
	return n
}
