package unixsock

import "golang.org/x/sys/unix"

func credentials(fd int) (Peer, error) {
	c, err := unix.GetsockoptXucred(fd, unix.SOL_LOCAL, unix.LOCAL_PEERCRED)
	if err != nil {
		return Peer{}, err
	}
	pid, err := unix.GetsockoptInt(fd, unix.SOL_LOCAL, unix.LOCAL_PEERPID)
	if err != nil {
		return Peer{}, err
	}
	p := Peer{PID: pid, UID: int(c.Uid)}
	if c.Ngroups > 0 {
		p.GID = int(c.Groups[0])
	}
	return p, nil
}
