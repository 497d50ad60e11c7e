package sidecar

import (
	"log/slog"
	"math"

	"golang.org/x/sys/unix"
)

// Descriptors that a sidecar needs beside the connections of apps.
const (
	maxHTTP     = 128  // connections to the HTTP port
	maxPeers    = 4096 // connections with other hosts, whichever side has opened them
	ownFiles    = 64   // standard streams, listeners, gossip, files that are read
	fewestFiles = 64   // with a lower limit nothing is shared out; the system may refuse
)

// filesWanted is what a sidecar uses descriptors for.
type filesWanted struct {
	apps    int  // connections of apps, at all doors
	http    bool // whether HTTP is served
	peers   bool // whether there are other hosts
	origins int  // of all origins
	passed  int  // sockets over which a descriptor was sent that has not been received
}

// fileShares are the shares of the descriptors that a process may have. No port can use up another
// port's. If the limit is too low, the apps lose most, because they have most.
// They still get at least half, since the socket is what the sidecar is for.
type fileShares struct {
	apps, http, peers int // connections
	passed            int // sockets of descriptors that have not been received
	rest              int // for origins and the process itself

	limit  uint64
	wanted int // connections of apps
}

// share computes the shares for a limit of descriptors.
func (wanted filesWanted) share(limit uint64) fileShares {
	f := fileShares{
		apps: wanted.apps, passed: wanted.passed, rest: ownFiles + wanted.origins, limit: limit, wanted: wanted.apps,
	}
	if wanted.http {
		f.http = maxHTTP
	}
	if wanted.peers {
		f.peers = maxPeers
	}
	have := int(min(limit, math.MaxInt32))
	if f.apps+f.http+f.peers+f.passed+f.rest <= have || have < fewestFiles {
		return f
	}
	f.http = min(f.http, have/16)
	f.peers = min(f.peers, have/8)
	f.rest = min(f.rest, have/4)
	f.passed = min(f.passed, have/16)
	f.apps = min(f.apps, have-f.http-f.peers-f.passed-f.rest)
	return f
}

// warn logs a warning if the limit is too low.
func (shares *fileShares) warn(log *slog.Logger) {
	if shares.apps < shares.wanted {
		log.Warn("the limit of open files is below what max_connections needs, so fewer apps can connect: "+
			"raise it (LimitNOFILE= in systemd, ulimit -Hn), or lower max_connections",
			"max_connections", shares.wanted, "limit", shares.limit, "connections", shares.apps)
	}
}

// fileLimit returns how many descriptors this process may have. Go raises the soft limit
// to the hard one when the process begins, and gives the old one to programs that it
// starts. An embedding program may have set the limit since.
func fileLimit() uint64 {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return math.MaxInt32
	}
	return uint64(l.Cur)
}
