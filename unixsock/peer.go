package unixsock

import (
	"fmt"
	"net"
)

// Peer is the process at the other end, as the kernel says. The kernel noted it when
// the process connected: what the process becomes later does not change it, nor does
// another process that the connection is handed to.
type Peer struct {
	PID, UID, GID int
	// Groups are the supplementary groups. They may have GID too.
	Groups []int
}

func (p Peer) String() string { return fmt.Sprintf("pid %d, uid %d, gid %d", p.PID, p.UID, p.GID) }

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
