package hosts

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// gates hold back the answers to a host's calls, while polls and events go on.
type gates struct {
	mu     sync.Mutex
	closed map[string]chan struct{} // by the IP of the answering host
}

// hold holds back the answers of a host until release is called.
func (g *gates) hold(ip string) (release func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed == nil {
		g.closed = map[string]chan struct{}{}
	}
	gate := make(chan struct{})
	g.closed[ip] = gate
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.closed, ip)
		close(gate)
	}
}

func (g *gates) at(ip string) chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed[ip]
}

// dial returns the function with which the host calls other hosts.
func (g *gates) dial(v *vnode) func(context.Context, string) (net.Conn, error) {
	return func(ctx context.Context, address string) (net.Conn, error) {
		c, err := v.host.Dial(ctx, address)
		if err != nil {
			return nil, err
		}
		ip, _, _ := net.SplitHostPort(address)
		return &gatedConn{Conn: c, gates: g, ip: ip}, nil
	}
}

type gatedConn struct {
	net.Conn
	gates *gates
	ip    string
	begun atomic.Bool
	calls atomic.Bool // carries calls, not polls; known from the greeting
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if !c.begun.Swap(true) {
		c.calls.Store(bytes.Contains(b, []byte("\xa4call")))
	}
	return c.Conn.Write(b)
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if gate := c.gates.at(c.ip); gate != nil && c.calls.Load() {
		<-gate
	}
	return n, err
}
