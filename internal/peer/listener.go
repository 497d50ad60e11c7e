package peer

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// Limits of strangers: connections that have not been greeted.
const (
	// greetWithin is the time for the handshake and the greeting together.
	greetWithin = 5 * time.Second
	// maxUngreeted limits how many strangers there are at once. When one more arrives,
	// the oldest connection of the address that has the most is closed.
	maxUngreeted = 256
	// arrivalsPerSecond limits how many connections arrive; a further one is closed
	// unread. A hundred hosts that start at once make 200 connections to each host.
	arrivalsPerSecond = 200
	arrivalsBurst     = 400
	// maxHandshake limits what is read for a handshake, in bytes. Certificates are
	// parsed before they are checked, and 64 KiB of them cost 1.3 ms.
	maxHandshake = 16 << 10
	// MaxGreeting limits a greeting, in bytes. A greeting has 76 bytes for each flush
	// that is remembered; there are about a thousand flushes.
	MaxGreeting = 256 << 10
)

// listener is a net.Listener that limits how long a connection may stay without a greeting.
// With credentials, Accept returns connections whose handshake is done.
//
// Goroutines: one accepts, and each handshake has one. They end with Close, which waits
// for them.
type listener struct {
	ln    net.Listener
	creds func() *Credentials
	log   *slog.Logger
	rate  *rate.Limiter
	slots chan struct{} // has an element for each handshake that computes
	ready chan admitted
	done  chan struct{} // closed by Close
	tasks sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	waiting []*arrival // not greeted, in order of arrival

	counts listenerCounts
}

type listenerCounts struct {
	handshakes, failed, late, shed atomic.Int64
}

// admitted is what Accept returns.
type admitted struct {
	conn net.Conn
	err  error
}

// arrival is a connection that has not been greeted.
type arrival struct {
	nc    net.Conn // as it was accepted
	conn  net.Conn // as it is served
	host  string   // the address that it comes from
	proof *proof   // nil without credentials
	timer *time.Timer
}

func newListener(ln net.Listener, creds func() *Credentials, log *slog.Logger) *listener {
	return &listener{
		ln: ln, creds: creds, log: log, rate: rate.NewLimiter(arrivalsPerSecond, arrivalsBurst),
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
		ready: make(chan admitted), done: make(chan struct{}),
	}
}

// open starts to accept connections.
func (d *listener) open() {
	d.tasks.Go(func() { // ends with the listener
		for {
			nc, err := d.ln.Accept()
			if err != nil {
				if !d.deliver(admitted{err: err}) || errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			d.arrived(nc)
		}
	})
}

// deliver gives a result to Accept. It returns false if the listener is closed.
func (d *listener) deliver(a admitted) bool {
	select {
	case d.ready <- a:
		return true
	case <-d.done:
		return false
	}
}

// Accept returns the next connection. Its handshake is done.
func (d *listener) Accept() (net.Conn, error) {
	select {
	case a := <-d.ready:
		return a.conn, a.err
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Addr returns the listener's address.
func (d *listener) Addr() net.Addr { return d.ln.Addr() }

// Close stops accepting, and closes the connections that have not been greeted.
func (d *listener) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return net.ErrClosed
	}
	d.closed = true
	close(d.done)
	waiting := d.waiting
	d.waiting = nil
	d.mu.Unlock()
	err := d.ln.Close()
	for _, a := range waiting {
		a.timer.Stop()
		_ = a.nc.Close()
	}
	d.tasks.Wait()
	return err
}

// arrived admits a connection, or closes it unread.
func (d *listener) arrived(nc net.Conn) {
	host, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
	a := &arrival{nc: nc, conn: nc, host: host}
	if !d.rate.Allow() || !d.enter(a) {
		d.counts.shed.Add(1)
		_ = nc.Close()
		return
	}
	if d.creds == nil {
		if !d.deliver(admitted{conn: nc}) {
			_ = nc.Close()
		}
		return
	}
	d.tasks.Go(func() { // ends with the handshake, at the latest after greetWithin
		if err := d.handshake(a); err != nil {
			d.counts.failed.Add(1)
			d.log.Info("a connection is refused: its handshake has failed",
				"from", nc.RemoteAddr().String(), "reason", trimmed(err.Error()))
			closeForWriting(nc) // so that the other side can read the reason
			d.leave(a)
			_ = nc.Close()
			return
		}
		d.counts.handshakes.Add(1)
		if !d.deliver(admitted{conn: a.conn}) {
			_ = nc.Close()
		}
	})
}

// enter adds a connection to those that have not been greeted, and starts its timer. It
// returns false if the listener is closed.
func (d *listener) enter(a *arrival) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	if len(d.waiting) >= maxUngreeted {
		d.counts.shed.Add(1)
		d.endLocked(d.waiting[quota.OldestOfMost(d.waiting, func(a *arrival) string { return a.host })])
	}
	d.waiting = append(d.waiting, a)
	a.timer = time.AfterFunc(greetWithin, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.endLocked(a) {
			d.counts.late.Add(1)
		}
	})
	return true
}

// endLocked closes a connection that has not been greeted. It returns false if the
// connection is not in the list any more. d.mu is held.
func (d *listener) endLocked(a *arrival) bool {
	if !d.dropLocked(a) {
		return false
	}
	a.timer.Stop()
	_ = a.nc.Close() // wakes its reader, which closes the rest
	return true
}

func (d *listener) dropLocked(a *arrival) bool {
	for i, o := range d.waiting {
		if o == a {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// arrivalOf returns the arrival of a connection that Accept has returned; nil if its time has
// ended since.
func (d *listener) arrivalOf(conn net.Conn) *arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.waiting {
		if a.conn == conn {
			return a
		}
	}
	return nil
}

// leave removes a connection from those that have not been greeted, because it has been
// greeted or has ended. It returns false if its time had ended before.
func (d *listener) leave(a *arrival) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dropLocked(a) {
		return false
	}
	a.timer.Stop()
	return true
}

// ungreeted returns how many connections have not been greeted.
func (d *listener) ungreeted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// handshake does the TLS handshake of an arrival. The arrival's timer ends it.
func (d *listener) handshake(a *arrival) error {
	g := &handshakeConn{left: maxHandshake, slots: d.slots}
	if err := g.beginHandshake(a.nc); err != nil {
		return err
	}
	creds := d.creds()
	var shown *proof
	conn := transport.Secure(a.nc, func(below net.Conn) *tls.Conn {
		g.Conn = below
		return tls.Server(g, creds.config(func(p *proof) error { shown = p; return nil }))
	})
	err := d.compute(func() error { return conn.HandshakeContext(context.Background()) })
	if err != nil {
		return err
	}
	g.endHandshake()
	d.mu.Lock()
	defer d.mu.Unlock()
	a.conn, a.proof = conn, shown
	return nil
}

// compute runs a handshake while it has a slot. Its handshakeConn gives the slot up
// while the handshake waits.
func (d *listener) compute(f func() error) error {
	d.slots <- struct{}{}
	defer func() { <-d.slots }()
	return f()
}
