package peer

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// dropUnheard ends a connection once nothing has come back for d for what was
// sent. Otherwise what is sent while the network is cut waits behind ever longer
// pauses between repetitions, for as long again as the cut has lasted.
func dropUnheard(nc net.Conn, d time.Duration) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok || d <= 0 {
		return
	}
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { // without it the cut is noticed later
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d/time.Millisecond))
		})
	}
}
