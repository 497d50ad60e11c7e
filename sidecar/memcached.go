package sidecar

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"strings"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/verify"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// memcachedDoor is the endpoint for clients of memcached's protocol.
type memcachedDoor struct {
	door   *memcached.Endpoint // nil: there is no endpoint
	server *server.Server
	ln     net.Listener
	socket *unixsock.Listener // ln, if it is a Unix socket
	passed net.Listener       // by systemd, to be ln; nil: none
}

// memcachedDefaults sets and checks the settings of the memcached endpoint.
func (c *Config) memcachedDefaults() error {
	var wrong settings.Problems
	if c.Memcached == "off" {
		c.Memcached = ""
	}
	if c.MemcachedNamespace == "" {
		c.MemcachedNamespace = DefaultNamespace
	}
	switch name := c.MemcachedNamespace; {
	case name == verify.Namespace:
		wrong.Addf("memcached_namespace", "%s is reserved: use another name", name)
	case !kv.ValidNamespace(name):
		wrong.Addf("memcached_namespace", "%q: a name is 1 to %d of a-z, 0-9, _, . and -", name, kv.MaxNamespaceLen)
	}
	if d := c.MemcachedDelimiter; d != "" && (len(d) != 1 || d[0] <= ' ' || d[0] > '~' || kv.ValidNamespace(d)) {
		wrong.Addf("memcached_delimiter", "%q: give one visible character that no namespace's name has, such as \":\"",
			d)
	}
	wrong.Add(c.checkMemcachedAddress())
	return wrong.Err()
}

func (c *Config) checkMemcachedAddress() error {
	if c.Memcached == "" || isPath(c.Memcached) {
		return nil
	}
	_, port, err := net.SplitHostPort(c.Memcached)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	switch {
	case err != nil:
		return settings.Problemf("memcached", "%q: give the path of a Unix socket, host:port, such as "+
			"127.0.0.1:11211, "+
			"or \"off\" (%w)", c.Memcached, err)
	case !loopback(c.Memcached):
		return settings.Problemf("memcached", "%s is not loopback, and memcached's protocol has neither "+
			"encryption nor "+
			"passwords here: use a loopback address, or a Unix socket", c.Memcached)
	}
	return nil
}

// isPath says whether an address is the path of a Unix socket.
func isPath(address string) bool { return strings.Contains(address, "/") }

// open makes the endpoint, if there is one. It does not listen yet.
func (m *memcachedDoor) open(cfg *Config, limits server.Limits, doors *session.Sessions) {
	if cfg.Memcached == "" {
		return
	}
	m.door = &memcached.Endpoint{
		Sessions: doors, Namespace: []byte(cfg.MemcachedNamespace), MaxValue: int(cfg.MaxValue),
		Conns: func() server.Stats { return m.server.Stats() }, Address: cfg.Memcached,
	}
	if cfg.MemcachedDelimiter != "" {
		m.door.Delimiter = cfg.MemcachedDelimiter[0]
	}
	limits.Framing, limits.MaxFrame = m.door, m.door.Longest()
	m.server = server.New(limits, cfg.Log, m.door.Handler)
}

// listen listens for clients of memcached's protocol, if there is an endpoint, or takes the listener
// that systemd has passed on for them.
func (m *memcachedDoor) listen(cfg *Config) (err error) {
	unix, _ := m.passed.(*net.UnixListener)
	tcp, _ := m.passed.(*net.TCPListener)
	switch {
	case m.door == nil, m.ln != nil: // a test's own
		return nil
	case isPath(cfg.Memcached):
		m.socket, err = unixsock.Listen(unixsock.Config{
			Path: cfg.Memcached, Mode: fs.FileMode(cfg.SocketMode), Group: cfg.SocketGroup, Passed: unix,
		})
		if err == nil {
			m.ln = m.socket
		}
	case tcp != nil:
		m.ln, err = tcp, transport.BoundReceive(tcp, receiveBuffer)
	default:
		m.ln, err = transport.ListenTCP(cfg.Memcached, 0, receiveBuffer, 0)
	}
	if err != nil {
		return fmt.Errorf("memcached: %w: free the address, or give another one as memcached", err)
	}
	cfg.Log.Info("serving memcached's protocol",
		"address", m.ln.Addr().String(), "namespace", cfg.MemcachedNamespace)
	return nil
}

// serve serves the endpoint, if there is one, until the front ends.
func (m *memcachedDoor) serve(front *layer) {
	if m.ln == nil {
		return
	}
	front.Go(func() error { return m.server.Serve(front.ctx, m.server.Sparing(m.ln)) })
	if m.socket != nil {
		front.run(m.keep)
	}
}

// keep makes the socket's file anew while it is missing.
func (m *memcachedDoor) keep(ctx context.Context) {
	told := ""
	for range kv.Every(ctx, socketEvery) {
		made, err := m.socket.Keep()
		switch {
		case err != nil && err.Error() != told:
			told = err.Error()
			m.server.Log.Error("clients of memcached's protocol do not find the socket; trying again",
				"socket", m.socket.Path(), "error", err)
		case made:
			told = ""
			m.server.Log.Warn("the file of memcached's socket was gone, and is made anew",
				"socket", m.socket.Path())
		}
	}
}

// stats returns the statistics of the endpoint; zero without one.
func (m *memcachedDoor) stats() cachesidecar.MemcachedStats {
	if m.door == nil {
		return cachesidecar.MemcachedStats{}
	}
	return m.door.Stats()
}

// close ends the endpoint.
func (m *memcachedDoor) close() {
	if m.ln == nil {
		return
	}
	m.door.Close()
	_ = m.ln.Close() // mostly closed already
}
