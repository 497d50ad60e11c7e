package transport

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Places of the kernel's structures in a request and an answer: see linux/netlink.h, linux/inet_diag.h.
const (
	netlinkHead = 16
	diagAsks    = netlinkHead + 56 // bytes of a request
	diagTells   = netlinkHead + 72 // bytes of an answer, at least
	socketAsked = netlinkHead + 8
	socketTold  = netlinkHead + 4
	uidAt       = netlinkHead + 64
	inodeAt     = netlinkHead + 68
)

// userOf asks the kernel for the one socket that is bound to an address and connected with another one. That takes
// four system calls and some 15 µs, however many sockets there are; /proc/net/tcp lists them all.
func userOf(bound, with netip.AddrPort) (uid int, ok bool) {
	const kind = unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	fd, err := unix.Socket(unix.AF_NETLINK, kind, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, false
	}
	defer func() { _ = unix.Close(fd) }()
	var asks [diagAsks]byte
	native := binary.NativeEndian
	native.PutUint32(asks[0:], diagAsks)
	native.PutUint16(asks[4:], unix.SOCK_DIAG_BY_FAMILY)
	native.PutUint16(asks[6:], unix.NLM_F_REQUEST)
	from, to := bound.Addr().Unmap(), with.Addr().Unmap()
	asks[netlinkHead], asks[netlinkHead+1] = unix.AF_INET, unix.IPPROTO_TCP
	if from.Is6() {
		asks[netlinkHead] = unix.AF_INET6
	}
	native.PutUint32(asks[netlinkHead+4:], ^uint32(0)) // in any state
	socket := asks[socketAsked:]
	binary.BigEndian.PutUint16(socket[0:], bound.Port())
	binary.BigEndian.PutUint16(socket[2:], with.Port())
	copy(socket[4:20], from.AsSlice())
	copy(socket[20:36], to.AsSlice())
	native.PutUint64(socket[40:], ^uint64(0)) // without its cookie
	if unix.Sendto(fd, asks[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return 0, false
	}
	var tells [256]byte
	n, _, err := unix.Recvfrom(fd, tells[:], 0) // the kernel has answered
	if err != nil || n < diagTells || native.Uint16(tells[4:]) != unix.SOCK_DIAG_BY_FAMILY {
		return 0, false
	}
	// It may be a socket that listens at that port, or one that its process has closed.
	if [4]byte(tells[socketTold:]) != [4]byte(socket) || native.Uint32(tells[inodeAt:]) == 0 {
		return 0, false
	}
	return int(native.Uint32(tells[uidAt:])), true
}
