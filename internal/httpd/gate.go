package httpd

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// gate bounds the connections to the HTTP port. If there are as many as allowed, a new one takes the place of one
// of the user that has the most, or of the address, if the user is not known: of the connection that rests
// longest, or, if all are at work, of the one that began first. So a health probe always gets in.
type gate struct {
	net.Listener
	most   int
	closed atomic.Int64 // because no place, or no file descriptor, was left

	mu   sync.Mutex
	open []*place // in the order in which they came, or began or ended their last requests
}

// place is that of one connection.
type place struct {
	conn  net.Conn
	owner string
	rests bool // since its last answer
}

// Each new connection costs about as much as a hundred hits. A health probe behind a storm of a full
// backlog, 4,096, waits two seconds.
const (
	arrivalRate  = 2000 // connections a second, after the first ones
	arrivalBurst = 32
)

func newGate(ln net.Listener, most int) *gate {
	g := &gate{most: most}
	g.Listener = server.Sparing(server.Paced(ln, arrivalRate, arrivalBurst), func(error) { g.closed.Add(1) })
	return g
}

// Accept returns the next connection, which has a place.
func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err == nil {
		g.enter(c, ownerOf(c))
	}
	return c, err
}

// ownerOf returns the user at the other end of a connection, or the address.
func ownerOf(c net.Conn) string {
	if uid, ok := transport.UserOf(c); ok {
		return quota.UserTenant(uid)
	}
	host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
	return host
}

// ownerKey is the key of the owner in the context of a connection's requests.
type ownerKey struct{}

// withOwner tells the requests of a connection its owner.
func (g *gate) withOwner(ctx context.Context, c net.Conn) context.Context {
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := slices.IndexFunc(g.open, func(p *place) bool { return p.conn == c }); at >= 0 {
		return context.WithValue(ctx, ownerKey{}, g.open[at].owner)
	}
	return ctx // another connection has its place
}

// ownerOfRequest returns the owner of the connection of a request; "": it came over none of the gate.
func ownerOfRequest(r *http.Request) string {
	owner, _ := r.Context().Value(ownerKey{}).(string)
	return owner
}

// enter gives a connection a place, if necessary the place of another connection.
func (g *gate) enter(c net.Conn, owner string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open = append(g.open, &place{conn: c, owner: owner}); len(g.open) <= g.most {
		return
	}
	g.closed.Add(1)
	at := quota.OldestOfMost(g.open, func(p *place) string { return p.owner })
	most := g.open[at].owner
	if i := slices.IndexFunc(g.open, func(p *place) bool { return p.rests && p.owner == most }); i >= 0 {
		at = i
	}
	_ = g.open[at].conn.Close() // frees its descriptor, and does not block
	g.open = slices.Delete(g.open, at, at+1)
}

// state is called by the HTTP server when the state of a connection changes.
func (g *gate) state(c net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at := slices.IndexFunc(g.open, func(p *place) bool { return p.conn == c })
	if at < 0 || state == http.StateNew {
		return // another connection has its place; or it has just got it
	}
	p := g.open[at]
	g.open = slices.Delete(g.open, at, at+1)
	if state != http.StateClosed && state != http.StateHijacked {
		p.rests = state == http.StateIdle
		g.open = append(g.open, p)
	}
}

// len returns how many connections are open.
func (g *gate) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}
