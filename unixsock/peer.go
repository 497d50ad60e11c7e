package unixsock

import (
	"fmt"
	"net"
)

// Peer is the process at the other end of a connection, as the kernel recorded it when
// that process connected. Later changes of the process, or another process that gets the
// connection, do not change it.
type Peer struct {
	PID, UID, GID int
	// Groups are the supplementary groups. They may include GID.
	Groups []int
}

// PeerOf asks the kernel for the credentials of a connection's other end.
func PeerOf(nc net.Conn) (Peer, error) {
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		return Peer{}, fmt.Errorf("a %T has no peer credentials", nc)
	}
	raw, err := uc.SyscallConn()
	if err != nil {
		return Peer{}, err
	}
	var p Peer
	var inner error
	if err := raw.Control(func(fd uintptr) { p, inner = credentials(int(fd)) }); err != nil {
		return Peer{}, err
	}
	return p, inner
}
