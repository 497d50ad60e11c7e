package session_test

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
	"github.com/cachesidecar/cachesidecar/internal/bubble"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/memcached/endpoint"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/simnet"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// host is a host that serves connections: over Unix sockets, or in a bubble over a network
// in memory.
type host struct {
	*onehost.Host
	t        testing.TB
	doors    *session.Doors
	net      *simnet.Net // nil: Unix sockets
	servers  map[string]*served
	doorways map[string]*endpoint.Door
	using    sync.WaitGroup // see Enter
}

// served is a server of one kind of connections.
type served struct {
	*server.Server
	network, address string
}

// serve returns a host that serves Unix sockets until the test ends.
func serve(t testing.TB, cfg onehost.Config) *host {
	t.Helper()
	h := &host{Host: onehost.New(t, cfg), t: t, servers: map[string]*served{}, doorways: map[string]*endpoint.Door{}}
	t.Cleanup(h.using.Wait)
	h.doors = session.New(session.Config{
		Engine: h.Engine, Host: itself{h}, Version: "1.2.3",
		Limits: func() server.Limits { return h.limits() },
	})
	return h
}

// virtually runs a test in virtual time, with a host whose network is in memory.
func virtually(t *testing.T, cfg onehost.Config, f func(t *testing.T, h *host)) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		h := serve(t, cfg)
		h.net = simnet.New(1)
		f(t, h)
	})
}

// itself is what the sessions of a host need of a sidecar.
type itself struct{ *host }

func (itself) Probed(*wire.Probe) wire.Probed { return wire.Probed{} }
func (itself) Batch(time.Duration)            {}

func (i itself) Stats() cachesidecar.Stats {
	return cachesidecar.Stats{Node: "host", L2: i.Store.Stats().L2Stats, Namespaces: i.Names.Stats()}
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

func (h *host) limits() server.Limits {
	return server.Limits{MaxFrame: h.Config.MaxValue + wire.FrameSlack, Budget: h.Budget}
}

// dial returns a connection to the server of its kind, which the first one starts.
func (h *host) dial(kind, network string, l server.Limits, handler func(net.Conn) (server.Handler, error)) net.Conn {
	h.t.Helper()
	s := h.servers[kind]
	if s == nil {
		s = &served{server.New(l, slog.New(slog.DiscardHandler), handler), network, "127.0.0.1:0"}
		s.Leaving = func() { h.doors.Leave(0) }
		h.servers[kind] = s
		h.listen(s)
	}
	nc, err := h.connect(s)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { nc.Close() })
	return nc
}

// listen serves until the test ends.
func (h *host) listen(s *served) {
	h.t.Helper()
	var ln net.Listener
	var err error
	switch {
	case h.net != nil:
		ln, err = h.net.Host("10.0.0.1").Listen(0)
	case s.network == "unix":
		s.address = filepath.Join(h.t.TempDir(), "s")
		fallthrough
	default:
		ln, err = net.Listen(s.network, s.address)
	}
	if err != nil {
		h.t.Fatal(err)
	}
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

func (h *host) connect(s *served) (net.Conn, error) {
	if h.net != nil {
		return h.net.Host("10.0.0.1").Dial(context.Background(), s.address)
	}
	return net.Dial(s.network, s.address)
}

// app returns a connection of an app that has said HELLO.
func (h *host) app() *conn {
	h.t.Helper()
	if h.net != nil { // which has no users
		root := h.Access.Caller(unixsock.Peer{})
		return h.as("app", root, func() *quota.Member { return h.Shares.Join(quota.UserOwner(0)) })
	}
	c := h.stranger()
	if r := c.call(wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}}); r.Status != wire.OK {
		h.t.Fatalf("HELLO: %s %s", r.Status, r.Message)
	}
	return c
}

// stranger returns a connection that has not said HELLO.
func (h *host) stranger() *conn {
	h.t.Helper()
	return newConn(h.t, h.dial("app", "unix", h.limits(), h.doors.App))
}

// user returns a connection of a user's app.
func (h *host) user(uid int) *conn {
	h.t.Helper()
	by := h.Access.Caller(unixsock.Peer{UID: uid, GID: uid})
	return h.as(quota.UserOwner(uid), by, func() *quota.Member { return h.Shares.Join(quota.UserOwner(uid)) })
}

func (h *host) as(kind string, by access.Caller, member func() *quota.Member) *conn {
	h.t.Helper()
	return newConn(h.t, h.dial(kind, "unix", h.limits(), func(net.Conn) (server.Handler, error) {
		m := member()
		if err := m.Acquire(quota.Connections); err != nil {
			return nil, err
		}
		return h.doors.Of(by, m), nil
	}))
}

// peer returns a connection like another host's.
func (h *host) peer() *conn {
	h.t.Helper()
	return newConn(h.t, h.dial("peer", "unix", server.Limits{Budget: h.Budget}, func(net.Conn) (server.Handler, error) {
		return h.doors.Peer(kv.Process{Node: "other", Epoch: 1}), nil
	}))
}
