package httpd

import (
	"container/list"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

// gate bounds the connections to the HTTP port. If there are as many as allowed, it
// closes the one that has waited longest without a request, and accepts the new one: idle
// connections of strangers do not keep a health probe out. If all connections are serving
// requests, it closes the new one at once.
type gate struct {
	net.Listener
	most   int
	closed atomic.Int64 // because no place, or no file descriptor, was left

	mu    sync.Mutex
	open  map[net.Conn]*list.Element // nil while its request is served
	waits list.List                  // of net.Conn, the one that waits longest first
}

// Each new connection costs about as much as a hundred hits. A health probe behind a storm of a full
// backlog, 4,096, waits two seconds.
const (
	arrivalRate  = 2000 // connections a second, after the first ones
	arrivalBurst = 32
)

func newGate(ln net.Listener, most int) *gate {
	g := &gate{most: most, open: map[net.Conn]*list.Element{}}
	g.Listener = server.Sparing(server.Paced(ln, arrivalRate, arrivalBurst), func(error) { g.closed.Add(1) })
	return g
}

// Accept returns a connection that has a place.
func (g *gate) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if g.enter(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// enter gives a connection a place, if necessary the place of another connection.
func (g *gate) enter(c net.Conn) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.open) >= g.most {
		g.closed.Add(1)
		oldest := g.waits.Front()
		if oldest == nil {
			return false
		}
		other := g.waits.Remove(oldest).(net.Conn)
		delete(g.open, other)
		_ = other.Close() // frees its descriptor, and does not block
	}
	g.open[c] = g.waits.PushBack(c)
	return true
}

// state is called by the HTTP server when the state of a connection changes.
func (g *gate) state(c net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	at, there := g.open[c]
	if !there {
		return // another connection has its place
	}
	if at != nil && state != http.StateNew {
		g.waits.Remove(at)
		g.open[c] = nil
	}
	switch state {
	case http.StateIdle:
		g.open[c] = g.waits.PushBack(c)
	case http.StateClosed, http.StateHijacked:
		delete(g.open, c)
	}
}

// len returns how many connections are open.
func (g *gate) len() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open)
}
