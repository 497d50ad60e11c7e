package session

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Config is what the sessions of a host need.
type Config struct {
	Engine    *engine.Engine
	Host      Host
	Version   string               // of the program, for HELLO
	BootClock string               // the boot clock's name; "": none that apps can read
	Limits    func() server.Limits // of the socket
	Memory    Memory               // that apps share; nil: none
}

// Host is the sidecar, as its sessions see it.
type Host interface {
	// Stats returns the answer to STATS.
	Stats() cachesidecar.Stats
	// Serve answers a request wherever its keys are. The pins are released while it
	// waits.
	Serve(ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration) wire.Reply
	// Probed reads a key for another host's VERIFY.
	Probed(p *wire.Probe) wire.Probed
	// Enter keeps the store open until leave is called; false means that it is closed.
	Enter() (leave func(), ok bool)
	// Batch is told how long a batch took, for one batch in batchSample.
	Batch(took time.Duration)
}

// Doors makes the sessions of a host.
type Doors struct {
	Config
	farewell farewell
	passing  passing
}

// New returns the Doors of a host.
func New(cfg Config) *Doors { return &Doors{Config: cfg} }

// Of returns the session of a caller that needs no HELLO.
func (d *Doors) Of(by access.Caller, m *quota.Member) *Session {
	return &Session{
		Doors: d, Core: d.Engine, By: by, member: m, hello: true, Namespace: DefaultNamespace,
		Names: namespaces.Pins{Table: d.Engine.Names, Member: m}, slow: d.Host.Serve,
	}
}

// App returns the session of an app's connection.
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
	c.hello = false
	return c, nil
}

// Join returns the session of a connection, which takes a place of its owner's, as quota.UserOwner
// names it. The log names the client by about.
func (d *Doors) Join(by access.Caller, owner, process string, about ...any) (*Session, error) {
	c := d.Of(by, d.Engine.Shares.Join(owner))
	c.process, c.about = process, about
	if err := c.member.Acquire(quota.Connections); err != nil {
		c.member.Leave()
		return nil, err
	}
	c.Log(slog.LevelDebug, "connection opened")
	return c, nil
}

// DefaultNamespace is the namespace of connections whose HELLO names none.
var DefaultNamespace = []byte(namespaces.Default)

// Peer returns the handler of another sidecar's requests: a session that needs no HELLO,
// and whose requests go no further than this host.
func (d *Doors) Peer(from kv.Process) server.Handler {
	m := d.Engine.Shares.Join("node " + string(from.Node))
	return &Session{
		Doors: d, Core: d.Engine, from: from, about: []any{"from", from.Node}, member: m, hello: true,
		Namespace: DefaultNamespace, Names: namespaces.Pins{Table: d.Engine.Names, Member: m},
		slow: d.Engine.ServePeer, Tally: Tally{served: &d.Engine.Counts.Served},
	}
}
