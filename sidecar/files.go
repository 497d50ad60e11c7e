package sidecar

import (
	"log/slog"
	"math"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/session"
)

// Descriptors that the process needs beside the apps' connections.
const (
	maxHTTP      = 128  // connections to the HTTP port
	maxPeerConns = 4096 // with other hosts, whichever side has opened them
	ownFiles     = 64   // standard streams, listeners, gossip, files that are read
	fewestFiles  = 64   // with a lower limit nothing is shared out; the system may refuse
)

// files shares out the descriptors that a process may have, so that no port can use up
// another port's. If the limit is too low, the apps lose most, because they have most.
// They still get at least half, since the socket is what the sidecar is for.
type files struct {
	limit             uint64 // RLIMIT_NOFILE
	apps, http, peers int    // concurrent connections
	rest              int    // for origins and the process itself
	wanted            int    // max_connections
}

// shareFiles computes the shares for a limit.
func shareFiles(c *Config, limit uint64) files {
	f := files{limit: limit, apps: c.MaxConnections, wanted: c.MaxConnections, rest: ownFiles}
	if c.HTTP != "" {
		f.http = maxHTTP
	}
	if c.Bind != "" {
		f.peers = maxPeerConns
	}
	for _, ns := range c.Namespaces {
		if ns.Origin != nil {
			f.rest += ns.Origin.Descriptors()
		}
	}
	have := int(min(limit, math.MaxInt32))
	if f.apps+f.http+f.peers+f.rest <= have || have < fewestFiles {
		return f
	}
	f.http = min(f.http, have/16)
	f.peers = min(f.peers, have/8)
	f.rest = min(f.rest, have/4)
	f.apps = min(f.apps, have-f.http-f.peers-f.rest)
	return f
}

// warn logs a warning if the limit is too low.
func (f *files) warn(log *slog.Logger) {
	if f.apps < f.wanted {
		log.Warn("the limit of open files is below what max_connections needs, so fewer apps can connect: "+
			"raise it (LimitNOFILE= in systemd, ulimit -Hn), or lower max_connections",
			"max_connections", f.wanted, "limit", f.limit, "connections", f.apps)
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

// newPlaces returns the places that all connections share.
func newPlaces(c *Config) *places.Table {
	return places.New([places.Resources]int64{
		places.LeaseTokens: engine.MaxLeases, places.Watches: engine.MaxWatches, places.Waiting: session.MaxSlow,
		places.Names: int64(c.MaxNamespaces - len(c.Namespaces)), places.Connections: int64(c.MaxConnections), places.Flushes: namespaces.MaxFlushed,
	})
}
