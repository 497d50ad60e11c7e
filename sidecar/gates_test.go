package sidecar

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
)

// gates hold back what a host is answered to its calls, while polls and events
// go on.
type gates struct {
	mu     sync.Mutex
	closed map[string]chan struct{} // by the IP that answers
}

// hold holds back what a host answers until the function returned is called.
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

// dial is how the host calls others.
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
	calls atomic.Bool // carries calls, not polls: the greeting tells
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
