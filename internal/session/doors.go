package session

import (
	"fmt"
	"net"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// DefaultNamespace is the namespace of connections whose HELLO names none.
var DefaultNamespace = []byte(namespaces.Default)

// Of returns the handler of a caller that needs no HELLO.
func (d *Doors) Of(by access.Caller, m *quota.Member) *Handler {
	return &Handler{Session: d.session(by, m), hello: true, Namespace: DefaultNamespace}
}

// App returns the handler of an app's connection.
func (d *Doors) App(nc net.Conn) (server.Handler, error) {
	app, err := unixsock.PeerOf(nc)
	if err != nil {
		return nil, err
	}
	c, err := d.Join(d.Engine.Access.Caller(app), quota.UserOwner(app.UID), fmt.Sprint("pid ", app.PID),
		"pid", app.PID, "uid", app.UID, "gid", app.GID)
	if err != nil {
		return nil, err
	}
	return &Handler{Session: c, Namespace: DefaultNamespace}, nil
}

// Peer returns the handler of another sidecar's requests: it needs no HELLO, and its requests go no
// further than this host.
func (d *Doors) Peer(from kv.Process) server.Handler {
	c := d.Of(access.Caller{}, d.Engine.Shares.Join("node "+string(from.Node)))
	c.from, c.about, c.slow = from, []any{"from", from.Node}, d.Engine.ServePeer
	c.Tally.served = &d.Engine.Counts.Served
	return c
}
