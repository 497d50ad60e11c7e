// Package doors is a host that serves connections, for tests. Only tests use it.
package doors

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Host is a host that serves connections: over Unix sockets, or in a bubble over a network
// in memory.
type Host struct {
	*onehost.Host
	t         testing.TB
	Sessions  *session.Sessions
	Net       *simnet.Net // nil: Unix sockets
	Servers   map[string]*served
	endpoints map[string]*memcached.Endpoint
	using     sync.WaitGroup // see Enter
}

// served is a server of one kind of connections.
type served struct {
	*server.Server
	network, address string
}

// Serve returns a host that serves Unix sockets until the test ends.
func Serve(t testing.TB, cfg onehost.Config) *Host {
	t.Helper()
	h := &Host{
		Host: onehost.New(t, cfg), t: t,
		Servers: map[string]*served{}, endpoints: map[string]*memcached.Endpoint{},
	}
	t.Cleanup(h.using.Wait)
	h.Sessions = session.New(session.Config{
		Engine: h.Engine, Host: itself{h}, Version: "1.2.3",
		Limits: func() server.Limits { return h.Limits() },
	})
	return h
}

// Virtually runs a test in virtual time, with a host whose network is in memory.
func Virtually(t *testing.T, cfg onehost.Config, f func(t *testing.T, h *Host)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		h := Serve(t, cfg)
		h.Net = simnet.New(1)
		f(t, h)
	})
}

// itself is what the sessions of a host need of a sidecar.
type itself struct{ *Host }

func (itself) Batch(time.Duration) {}

func (i itself) Stats() cachesidecar.Stats {
	return cachesidecar.Stats{Node: "host", L2: i.Store.Stats().L2Stats, Namespaces: i.Namespaces.Stats()}
}

func (i itself) Enter() (leave func(), ok bool) {
	i.using.Add(1)
	return i.using.Done, true
}

func (i itself) Serve(
	ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	return i.ServeNow(ctx, q, b, deadline)
}

func (h *Host) Limits() server.Limits {
	return server.Limits{MaxFrame: h.Config.MaxValue + wire.FrameSlack, Budget: h.Budget}
}

// Dial returns a connection to the server of its kind, which the first one starts.
func (h *Host) Dial(kind, network string, l server.Limits, handler func(net.Conn) (server.Handler, error)) net.Conn {
	h.t.Helper()
	s := h.Servers[kind]
	if s == nil {
		s = &served{server.New(l, slog.New(slog.DiscardHandler), handler), network, "127.0.0.1:0"}
		s.Leaving = func() { h.Sessions.Leave(0) }
		h.Servers[kind] = s
		h.listen(s)
	}
	nc, err := h.Connect(s)
	testenv.Must(h.t, err)
	h.t.Cleanup(func() { nc.Close() })
	return nc
}

// listen serves until the test ends.
func (h *Host) listen(s *served) {
	h.t.Helper()
	var ln net.Listener
	var err error
	switch {
	case h.Net != nil:
		ln, err = h.Net.Host("10.0.0.1").Listen(0)
	case s.network == "unix":
		s.address = filepath.Join(h.t.TempDir(), "s")
		fallthrough
	default:
		ln, err = net.Listen(s.network, s.address)
	}
	testenv.Must(h.t, err)
	s.address = ln.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }() // ends with the test
	h.t.Cleanup(func() {
		stop()
		if err := <-served; err != nil {
			h.t.Error(err)
		}
	})
}

func (h *Host) Connect(s *served) (net.Conn, error) {
	if h.Net != nil {
		return h.Net.Host("10.0.0.1").Dial(context.Background(), s.address)
	}
	return net.Dial(s.network, s.address)
}

// App returns a connection of an app that has said HELLO.
func (h *Host) App() *Conn {
	h.t.Helper()
	if h.Net != nil { // which has no users
		root := h.Access.Caller(unixsock.Peer{})
		return h.as("app", root, quota.App{})
	}
	c := h.Stranger()
	if r := c.Call(wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}}); r.Status != wire.OK {
		h.t.Fatalf("HELLO: %s %s", r.Status, r.Message)
	}
	return c
}

// Stranger returns a connection that has not said HELLO.
func (h *Host) Stranger() *Conn {
	h.t.Helper()
	return NewConn(h.t, h.Dial("app", "unix", h.Limits(), h.Sessions.App))
}

// User returns a connection of a user's app.
func (h *Host) User(uid int) *Conn {
	h.t.Helper()
	by := h.Access.Caller(unixsock.Peer{UID: uid, GID: uid})
	return h.as(quota.UserTenant(uid), by, quota.App{User: uid})
}

func (h *Host) as(kind string, by access.Caller, app quota.App) *Conn {
	h.t.Helper()
	return NewConn(h.t, h.Dial(kind, "unix", h.Limits(), func(net.Conn) (server.Handler, error) {
		a := h.Budget.Open(app.Names(""))
		if err := a.Acquire(quota.Connections); err != nil {
			a.Close()
			return nil, err
		}
		return h.Sessions.Of(by, a), nil
	}))
}

// Peer returns a connection like another host's.
func (h *Host) Peer() *Conn {
	h.t.Helper()
	return NewConn(h.t, h.Dial("peer", "unix", server.Limits{Budget: h.Budget}, func(net.Conn) (server.Handler, error) {
		return h.Sessions.Peer(kv.Process{Node: "other", Epoch: 1}), nil
	}))
}

// Text returns a client of the host's endpoint for memcached's protocol.
func (h *Host) Text() *memcachedtest.Conn {
	h.t.Helper()
	return h.TextOver("unix")
}

// TextOver is text over one of the networks that an endpoint may have.
func (h *Host) TextOver(network string) *memcachedtest.Conn {
	h.t.Helper()
	kind := "memcached over " + network
	if h.endpoints[kind] == nil {
		h.endpoints[kind] = &memcached.Endpoint{
			Namespace: session.DefaultNamespace, Delimiter: ':', Sessions: h.Sessions, MaxValue: h.Config.MaxValue,
			Conns:   func() server.Stats { return h.Servers[kind].Stats() },
			Address: map[string]string{"unix": "/a/socket", "tcp": "127.0.0.1:11211"}[network],
		}
	}
	door := h.endpoints[kind] // the map is the test's own
	l := h.Limits()
	l.Framing, l.MaxFrame = door, door.Longest()
	return memcachedtest.New(h.t, h.Dial(kind, network, l, door.Handler))
}
