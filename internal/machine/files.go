package machine

import (
	"log/slog"
	"math"

	"golang.org/x/sys/unix"
)

// Descriptors that a sidecar needs beside the connections of apps.
const (
	MaxHTTP     = 128  // connections to the HTTP port
	maxPeers    = 4096 // connections with other hosts, whichever side has opened them
	ownFiles    = 64   // standard streams, listeners, gossip, files that are read
	FewestFiles = 64   // with a lower limit nothing is shared out; the system may refuse
)

// FilesWanted is what a sidecar uses descriptors for.
type FilesWanted struct {
	Apps    int  // connections of apps, at each door
	Doors   int  // where apps connect
	HTTP    bool // whether HTTP is served
	Peers   bool // whether there are other hosts
	Origins int  // of all origins
	Passed  int  // sockets over which a descriptor was sent that has not been received
}

// Files shares out the descriptors that a process may have, so that no port can use up
// another port's. If the limit is too low, the apps lose most, because they have most.
// They still get at least half, since the socket is what the sidecar is for.
type Files struct {
	Apps, HTTP, Peers int // connections; Apps at each door
	Passed            int // sockets of descriptors that have not been received
	Rest              int // for origins and the process itself

	limit  uint64
	wanted int // connections of apps, at each door
}

// ShareFiles computes the shares for a limit of descriptors.
func ShareFiles(limit uint64, w FilesWanted) Files {
	f := Files{Apps: w.Apps, Passed: w.Passed, Rest: ownFiles + w.Origins, limit: limit, wanted: w.Apps}
	if w.HTTP {
		f.HTTP = MaxHTTP
	}
	if w.Peers {
		f.Peers = maxPeers
	}
	have := int(min(limit, math.MaxInt32))
	if w.Doors*f.Apps+f.HTTP+f.Peers+f.Passed+f.Rest <= have || have < FewestFiles {
		return f
	}
	f.HTTP = min(f.HTTP, have/16)
	f.Peers = min(f.Peers, have/8)
	f.Rest = min(f.Rest, have/4)
	f.Passed = min(f.Passed, have/16)
	f.Apps = min(f.Apps, (have-f.HTTP-f.Peers-f.Passed-f.Rest)/w.Doors)
	return f
}

// Warn logs a warning if the limit is too low.
func (f *Files) Warn(log *slog.Logger) {
	if f.Apps < f.wanted {
		log.Warn("the limit of open files is below what max_connections needs, so fewer apps can connect: "+
			"raise it (LimitNOFILE= in systemd, ulimit -Hn), or lower max_connections",
			"max_connections", f.wanted, "limit", f.limit, "connections", f.Apps)
	}
}

// FileLimit returns how many descriptors this process may have. Go raises the soft limit
// to the hard one when the process begins, and gives the old one to programs that it
// starts. An embedding program may have set the limit since.
func FileLimit() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxInt32
	}
	return uint64(l.Cur)
}
