package transport

import (
	"time"

	"golang.org/x/sys/unix"
)

// Unsent returns how many bytes of memory the kernel has for what a socket has sent and the
// peer has not read; over TCP, for what the peer's system has not received.
func Unsent(fd int) int {
	n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil || n == 0 {
		return 0
	}
	// After a reset over TCP the number stays what it was, although the bytes are gone.
	if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil && info.State == tcpClosed {
		return 0
	}
	return n
}

const tcpClosed = 7 // TCP_CLOSE of netinet/tcp.h

// limitUnsent ends connections of a TCP socket whose peer takes nothing for a time.
func limitUnsent(fd int, d time.Duration) error {
	return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
}
