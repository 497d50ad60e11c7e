package peer

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// dropUnheard closes a connection if what was sent is not acknowledged within d.
// Without it, TCP waits longer and longer between retransmissions while the network is
// cut. After the cut, the data would wait for as long again as the cut has lasted.
func dropUnheard(nc net.Conn, d time.Duration) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || d <= 0 {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // on failure the cut is noticed later
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d/time.Millisecond))
		})
	}
}
