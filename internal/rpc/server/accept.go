package server

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/sched"
)

// acceptQueue makes the connections of one tenant begin one after another when many come at once.
// The beginning is the most expensive moment of a connection: thousands of beginnings at
// the same time delay the requests of others. A connection that waits has only its place
// in the queue, and does not delay other tenants. The processes of one tenant take turns.
type acceptQueue struct {
	rate float64 // a second; zero: no bound

	mu      sync.Mutex
	tenants map[string]*arrivals
}

// arrivals are the connections of one tenant that wait to begin, by process. Of a process the last
// one that has come is the next. So most of those that begin then begin at once if more come than
// may begin, for long; in their order all of them would wait until their clients give up. The first
// ones have their turns when fewer come.
type arrivals struct {
	limit   *rate.Limiter
	waits   quota.FairQueue[*quota.Account, *Conn]
	running bool // a goroutine is in begin, for them
	turns   int  // since the last such look
	scanAt  int  // where the next look for clients that have gone begins
}

// acceptBurst is how many connections of each tenant may begin at once.
const acceptBurst = 128

// maxIdle is how many tenants it keeps before it forgets tenants that have no waiting
// connection and have had no new one for a while.
const maxIdle = 64

// A look is at so many connections, after so many turns. One whose client has gone begins then, and
// ends: without that such connections would take all places while more come than may begin.
const (
	scanSize  = 64
	scanEvery = 16
)

// enter says whether a connection begins now. If not, the connection waits. If enter returns the
// arrivals, the caller must begin them.
func (p *acceptQueue) enter(c *Conn) (now bool, begin *arrivals) {
	tenant := c.account.Tenant()
	if p.rate == 0 || tenant == "" {
		return true, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.tenants[tenant]
	if n == nil {
		if p.tenants == nil {
			p.tenants = map[string]*arrivals{}
		}
		p.forget()
		n = &arrivals{limit: rate.NewLimiter(rate.Limit(p.rate), acceptBurst)}
		p.tenants[tenant] = n
	}
	if !n.running {
		if n.limit.Allow() {
			return true, nil
		}
		n.running, begin = true, n
	}
	n.waits.Push(c.account.Process(), c)
	return false, begin
}

// waiting returns how many connections wait for their turn.
func (p *acceptQueue) waiting() (all int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range p.tenants {
		all += int64(n.waits.Len())
	}
	return all
}

// forget removes tenants that have had no new connections for a while. The lock is held.
func (p *acceptQueue) forget() {
	if len(p.tenants) < maxIdle {
		return
	}
	for name, n := range p.tenants {
		if !n.running && n.limit.Tokens() >= acceptBurst {
			delete(p.tenants, name)
		}
	}
}

// beginConns begins the connections of a tenant at their rate until none waits; once ctx ends, at once.
func (p *acceptQueue) beginConns(ctx context.Context, n *arrivals, beginConns func(*Conn)) {
	for p.continues(n) {
		sched.NoteBusy() // raises GOMAXPROCS for a while
		_ = n.limit.Wait(ctx)
		for _, c := range p.next(n) {
			beginConns(c)
		}
	}
}

// continues says whether any connections wait.
func (p *acceptQueue) continues(n *arrivals) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	n.running = n.waits.Len() > 0
	return n.running
}

// next removes the next connection, and now and then some whose clients have gone.
func (p *acceptQueue) next(n *arrivals) []*Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []*Conn{n.waits.PopLast()}
	if n.turns++; n.turns < scanEvery {
		return list
	}
	n.turns = 0
	if n.scanAt >= n.waits.Len() {
		n.scanAt = 0
	}
	first, last, i := n.scanAt, n.scanAt+scanSize, 0
	n.waits.Remove(func(c *Conn) bool {
		i++
		if i <= first || i > last || !c.socket.HungUp() {
			return false
		}
		list = append(list, c)
		return true
	})
	n.scanAt = last - (len(list) - 1)
	return list
}

// groupLimiter yields the processors to other goroutines when many connections come or go at
// once. A few pass at once; the rest pass in groups, one each millisecond, as the rate
// allows. Ten thousand connections in a row would delay the requests of other clients
// until the last one.
type groupLimiter struct{ limit *rate.Limiter }

// New connections wait in one queue of the system, of net.core.somaxconn connections of
// all users. A full queue, of 4,096, must be empty long before a client gives up, after
// 250 ms. The rate is that of one goroutine, on however many processors.
const (
	arrivalRate  = 25_000 // connections a second
	arrivalBurst = 64
)

// Each connection that ends has its own goroutine.
const (
	departureRate  = 4000 // connections a second and processor
	departureBurst = 16
)

// PerProcessor returns n times the number of processors that Go uses.
func PerProcessor(n float64) float64 { return n * float64(runtime.GOMAXPROCS(0)) }

// Paced returns a listener whose connections come at most so many a second, after the first ones.
func Paced(ln net.Listener, perSecond float64, atOnce int) net.Listener {
	return &pacedListener{ln, newGroupLimiter(perSecond, atOnce)}
}

type pacedListener struct {
	net.Listener
	limit *groupLimiter
}

// Accept returns the next connection, when it may begin.
func (ln *pacedListener) Accept() (net.Conn, error) {
	ln.limit.wait(nil)
	return ln.Listener.Accept()
}

func newGroupLimiter(perSecond float64, atOnce int) *groupLimiter {
	return &groupLimiter{rate.NewLimiter(rate.Limit(perSecond), atOnce)}
}

// wait waits until the caller's turn, or until done is closed. All callers whose turns
// are in the same millisecond go on together, because waking a thread for each would cost
// more than their work.
func (e *groupLimiter) wait(done <-chan struct{}) {
	d := e.limit.Reserve().Delay()
	if d <= 0 {
		return
	}
	t := time.NewTimer((d + time.Millisecond - 1).Truncate(time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
	case <-done:
	}
}

// spareListener is a listener that keeps a spare descriptor for the moment when there are no
// others. A connection that waits to be accepted then takes the place of the spare one.
// If there is still no other descriptor, the connection is ended. So its client knows at
// once, and the server does not loop.
//
// A connection that was ended stays open as the spare descriptor. If it were closed, and
// another descriptor opened in its place, another goroutine might take that place in
// between.
type spareListener struct {
	net.Listener
	onEnd func(error) // called with the reason when a connection is ended

	mu     sync.Mutex
	spare  io.Closer // nil if another goroutine was faster
	closed bool
}

// Sparing returns a listener over ln that ends a connection at once if there is no
// descriptor for it, and calls told for each. Only one goroutine may call Accept.
func Sparing(ln net.Listener, told func(error)) net.Listener {
	s := &spareListener{Listener: ln, onEnd: told}
	s.keepSpare()
	return s
}

// Accept returns the next connection for which there is a descriptor.
func (ln *spareListener) Accept() (net.Conn, error) {
	for {
		nc, err := ln.Listener.Accept()
		lack := errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		why := err
		if lack && ln.giveSpare() {
			// One connection waits, or the next one takes the place.
			nc, err = ln.Listener.Accept()
		}
		kept := ln.keepSpare()
		if err != nil || kept || !lack {
			return nc, err
		}
		ln.endAsSpare(nc)
		ln.onEnd(why)
	}
}

// Close closes the listener and the spare descriptor.
func (ln *spareListener) Close() error {
	ln.mu.Lock()
	ln.closed = true
	ln.mu.Unlock()
	ln.giveSpare()
	return ln.Listener.Close()
}

// giveSpare closes the spare descriptor. It says whether there was one.
func (ln *spareListener) giveSpare() bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.spare == nil {
		return false
	}
	_ = ln.spare.Close()
	ln.spare = nil
	return true
}

// keepSpare opens a spare descriptor if there is none. It says whether there is one.
func (ln *spareListener) keepSpare() bool {
	ln.mu.Lock()
	defer ln.mu.Unlock()
	if ln.spare == nil && !ln.closed {
		if f, err := os.Open(os.DevNull); err == nil {
			ln.spare = f
		}
	}
	return ln.spare != nil
}

// endAsSpare ends a connection and keeps it as the spare descriptor.
func (ln *spareListener) endAsSpare(nc net.Conn) {
	if c, ok := nc.(interface {
		CloseRead() error
		CloseWrite() error
	}); ok {
		_, _ = c.CloseRead(), c.CloseWrite() // both fail if the client has gone
		ln.mu.Lock()
		defer ln.mu.Unlock()
		if !ln.closed {
			ln.spare = nc
			return
		}
	}
	_ = nc.Close()
}
