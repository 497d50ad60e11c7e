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

	"github.com/cachesidecar/cachesidecar/internal/rpc"
)

// Bounds of what strangers may take: those that have not been greeted.
const (
	// greetWithin is the time for the handshake and the greeting together.
	greetWithin = 5 * time.Second
	// maxUngreeted bounds how many there are at once. For one more another goes:
	// the oldest of the address that has most.
	maxUngreeted = 256
	// arrivalsPerSecond bounds how many come; one more is closed unread. A hundred
	// hosts that start at once make 200 connections to each.
	arrivalsPerSecond = 200
	arrivalsBurst     = 400
	// maxHandshake bounds what is read for a handshake, in bytes: certificates are
	// parsed before they are looked at, and 64 KiB of them cost 1.3 ms.
	maxHandshake = 16 << 10
	// MaxGreeting bounds a greeting, in bytes. It has 76 for each flush that is
	// remembered, of which there are about a thousand.
	MaxGreeting = 256 << 10
)

// door is a listener that lets nobody in for long who does not say who it is. With
// credentials it hands on connections whose handshake is done.
//
// Goroutines: one accepts, each handshake has one. They end with Close, which
// waits for them.
type door struct {
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
	waiting []*arrival // not greeted, by when they came

	counts doorCounts
}

type doorCounts struct {
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

func newDoor(ln net.Listener, creds func() *Credentials, log *slog.Logger) *door {
	return &door{
		ln: ln, creds: creds, log: log, rate: rate.NewLimiter(arrivalsPerSecond, arrivalsBurst),
		slots: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), ready: make(chan admitted), done: make(chan struct{}),
	}
}

// open begins to accept.
func (d *door) open() {
	d.tasks.Go(func() { // ends with the listener
		for {
			nc, err := d.ln.Accept()
			if err != nil {
				if !d.pass(admitted{err: err}) || errors.Is(err, net.ErrClosed) {
					return
				}
				continue
			}
			d.arrived(nc)
		}
	})
}

// pass lets Accept return something, unless the door is closed.
func (d *door) pass(a admitted) bool {
	select {
	case d.ready <- a:
		return true
	case <-d.done:
		return false
	}
}

// Accept returns the next connection, whose handshake is done.
func (d *door) Accept() (net.Conn, error) {
	select {
	case a := <-d.ready:
		return a.conn, a.err
	case <-d.done:
		return nil, net.ErrClosed
	}
}

// Addr is the listener's.
func (d *door) Addr() net.Addr { return d.ln.Addr() }

// Close stops accepting and ends those that have not been greeted.
func (d *door) Close() error {
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

// arrived takes a connection, or closes it unread.
func (d *door) arrived(nc net.Conn) {
	host, _, _ := net.SplitHostPort(nc.RemoteAddr().String())
	a := &arrival{nc: nc, conn: nc, host: host}
	if !d.rate.Allow() || !d.enter(a) {
		d.counts.shed.Add(1)
		_ = nc.Close()
		return
	}
	if d.creds == nil {
		if !d.pass(admitted{conn: nc}) {
			_ = nc.Close()
		}
		return
	}
	d.tasks.Go(func() { // ends with the handshake, greetWithin from now at the latest
		if err := d.shake(a); err != nil {
			d.counts.failed.Add(1)
			d.log.Info("a connection is refused: its handshake has failed",
				"from", nc.RemoteAddr().String(), "reason", trimmed(err.Error()))
			letGo(nc) // it may learn why
			d.leave(a)
			_ = nc.Close()
			return
		}
		d.counts.handshakes.Add(1)
		if !d.pass(admitted{conn: a.conn}) {
			_ = nc.Close()
		}
	})
}

// enter gives a connection its time, and a place among those that have not been
// greeted.
func (d *door) enter(a *arrival) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	if len(d.waiting) >= maxUngreeted {
		d.counts.shed.Add(1)
		d.endLocked(d.greediestLocked())
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

// greediestLocked is the oldest connection of the address that has most.
func (d *door) greediestLocked() (first *arrival) {
	count, most := map[string]int{}, 0
	for _, a := range d.waiting {
		count[a.host]++
		most = max(most, count[a.host])
	}
	for _, a := range d.waiting {
		if count[a.host] == most {
			return a
		}
	}
	return nil
}

// endLocked ends a connection that has not been greeted. It says false where it
// has been.
func (d *door) endLocked(a *arrival) bool {
	if !d.dropLocked(a) {
		return false
	}
	a.timer.Stop()
	_ = a.nc.Close() // wakes its reader, which closes the rest
	return true
}

func (d *door) dropLocked(a *arrival) bool {
	for i, o := range d.waiting {
		if o == a {
			d.waiting = append(d.waiting[:i], d.waiting[i+1:]...)
			return true
		}
	}
	return false
}

// of finds the arrival that Accept has returned as conn; nil where its time was
// over since.
func (d *door) of(conn net.Conn) *arrival {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, a := range d.waiting {
		if a.conn == conn {
			return a
		}
	}
	return nil
}

// leave takes a connection out of those that have not been greeted: it has been,
// or has ended. It says false where its time was over.
func (d *door) leave(a *arrival) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.dropLocked(a) {
		return false
	}
	a.timer.Stop()
	return true
}

// ungreeted counts the connections that have not been greeted.
func (d *door) ungreeted() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.waiting)
}

// shake shakes hands with one that has arrived. Its time ends it.
func (d *door) shake(a *arrival) error {
	g := &gate{left: maxHandshake, slots: d.slots}
	if err := g.begin(a.nc); err != nil {
		return err
	}
	creds := d.creds()
	var shown *proof
	conn := rpc.Secure(a.nc, func(below net.Conn) *tls.Conn {
		g.Conn = below
		return tls.Server(g, creds.config(func(p *proof) error { shown = p; return nil }))
	})
	err := d.compute(func() error { return conn.HandshakeContext(context.Background()) })
	if err != nil {
		return err
	}
	g.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	a.conn, a.proof = conn, shown
	return nil
}

// compute runs a handshake while it has a slot. Its gate gives the slot up while
// the handshake waits.
func (d *door) compute(f func() error) error {
	d.slots <- struct{}{}
	defer func() { <-d.slots }()
	return f()
}
