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
	for i := range min(max(int(c.Ngroups), 0), len(c.Groups)) {
		p.Groups = append(p.Groups, int(c.Groups[i]))
	}
	if len(p.Groups) > 0 {
		p.GID = p.Groups[0]
	}
	return p, nil
}
