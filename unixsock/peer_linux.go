package unixsock

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

func credentials(fd int) (Peer, error) {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{PID: int(c.Pid), UID: int(c.Uid), GID: int(c.Gid)}
	p.Groups, err = peerGroups(fd)
	return p, err
}

// peerGroups returns the supplementary groups. Linux before 4.13 does not report them;
// the result is empty there.
func peerGroups(fd int) ([]int, error) {
	list := make([]uint32, 32) // more than most processes have
	for {
		size := uint32(len(list) * 4)
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&list[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch {
		case errno == unix.ERANGE && int(size) > len(list)*4 && size <= maxGroups*4:
			list = make([]uint32, (size+3)/4)
			continue
		case errors.Is(errno, unix.ENOPROTOOPT):
			return nil, nil
		case errno != 0:
			return nil, fmt.Errorf("SO_PEERGROUPS: %w", errno)
		}
		groups := make([]int, size/4)
		for i := range groups {
			groups[i] = int(list[i])
		}
		return groups, nil
	}
}

// maxGroups is the highest number of supplementary groups of a Linux process.
const maxGroups = 1 << 16
