package rpc

import (
	"time"

	"golang.org/x/sys/unix"
)

// unsent returns how many bytes of memory the kernel has for what a socket has sent and the
// peer has not read; over TCP, for what the peer's system has not received.
func unsent(fd int) int {
	n, _ := unix.IoctlGetInt(fd, unix.SIOCOUTQ) // zero if it fails
	return n
}

// limitUnsent ends connections of a TCP socket whose peer takes nothing for a time.
func limitUnsent(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
