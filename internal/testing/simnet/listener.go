package simnet

import (
	"context"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// listener accepts connections.
type listener struct {
	host   *Host
	addr   *net.TCPAddr
	queue  chan net.Conn
	closed chan struct{}
	done   bool // closed; guarded by the network's lock
}

// Listen listens on a port. Port 0 means a free port.
func (h *Host) Listen(port int) (net.Listener, error) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	return h.listen(port)
}

func (h *Host) listen(port int) (*listener, error) {
	n := h.net
	if port == 0 {
		port = n.freePort()
	}
	addr := &net.TCPAddr{IP: net.ParseIP(h.ip), Port: port}
	l := &listener{host: h, addr: addr, queue: make(chan net.Conn, backlog), closed: make(chan struct{})}
	switch {
	case h.dead:
		return nil, opError("listen", nil, addr, net.ErrClosed)
	case n.streams[addr.String()] != nil:
		return nil, opError("listen", nil, addr, os.NewSyscallError("bind", syscall.EADDRINUSE))
	}
	n.streams[addr.String()] = l
	h.listeners = append(h.listeners, l)
	return l, nil
}

// Accept returns the next connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
	default:
		select {
		case c := <-l.queue:
			return c, nil
		case <-l.closed:
		}
	}
	return nil, opError("accept", nil, l.addr, net.ErrClosed)
}

// Close stops listening and resets connections that were not accepted yet.
func (l *listener) Close() error {
	l.host.net.mu.Lock()
	defer l.host.net.mu.Unlock()
	if l.done {
		return opError("close", nil, l.addr, net.ErrClosed)
	}
	l.close()
	return nil
}

func (l *listener) close() {
	if l.done {
		return
	}
	l.done = true
	close(l.closed)
	delete(l.host.net.streams, l.addr.String())
	l.host.listeners = remove(l.host.listeners, l)
	for {
		select {
		case c := <-l.queue:
			c.(*conn).reset()
		default:
			return
		}
	}
}

// Addr returns the listener's address.
func (l *listener) Addr() net.Addr { return l.addr }

// Dial connects to an address of the form ip:port. It returns ECONNREFUSED if no process
// listens there. It waits until ctx ends while the link is cut in either direction, while
// either process is stopped, or if the machine does not exist.
func (h *Host) Dial(ctx context.Context, address string) (net.Conn, error) {
	remote, err := parse(address)
	if err != nil {
		return nil, opError("dial", nil, nil, err)
	}
	n := h.net
	to := remote.IP.String()
	for {
		n.mu.Lock()
		whole := n.reach(h.ip, to)
		changed := n.changed
		trip := n.streamDelay(h.ip, to) + n.streamDelay(to, h.ip)
		n.mu.Unlock()
		if !whole {
			if err := h.wait(ctx, changed, nil); err != nil {
				return nil, opError("dial", nil, remote, err)
			}
			continue
		}
		if err := h.wait(ctx, nil, time.NewTimer(trip)); err != nil {
			return nil, opError("dial", nil, remote, err)
		}
		c, err := h.connect(remote)
		if err != nil {
			return nil, opError("dial", nil, remote, err)
		}
		if c != nil {
			return c, nil
		}
		// The link was cut meanwhile, or the backlog is full.
		if err := h.wait(ctx, nil, time.NewTimer(retransmit)); err != nil {
			return nil, opError("dial", nil, remote, err)
		}
	}
}

// reach reports whether a connection can be made.
func (n *Net) reach(from, to string) bool {
	return n.machines[to] && !n.isCut(from, to) && !n.isCut(to, from) && !n.still(from, to)
}

// wait returns when ch is closed or t fires. It returns an error if ctx ends or the
// process is killed first.
func (h *Host) wait(ctx context.Context, ch <-chan struct{}, t *time.Timer) error {
	var fired <-chan time.Time
	if t != nil {
		defer t.Stop()
		fired = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.killed:
		return net.ErrClosed
	case <-ch:
	case <-fired:
	}
	return nil
}

// connect makes both ends of a connection. It returns nil and no error if the caller must
// try again later.
func (h *Host) connect(remote *net.TCPAddr) (net.Conn, error) {
	n := h.net
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.streams[remote.String()]
	switch {
	case h.dead:
		return nil, net.ErrClosed
	case !n.reach(h.ip, remote.IP.String()):
		return nil, nil
	case l == nil:
		return nil, os.NewSyscallError("connect", syscall.ECONNREFUSED)
	case len(l.queue) == cap(l.queue):
		return nil, nil
	}
	local := &net.TCPAddr{IP: net.ParseIP(h.ip), Port: n.freePort()}
	there, back := n.pipe(h, l.host), n.pipe(l.host, h)
	ours := &conn{host: h, local: local, remote: l.addr, in: back, out: there}
	theirs := &conn{host: l.host, local: l.addr, remote: local, in: there, out: back}
	back.reader, there.reader = ours, theirs
	h.conns = append(h.conns, ours)
	l.host.conns = append(l.host.conns, theirs)
	l.queue <- theirs // has room: the lock is held, and only connect adds
	return ours, nil
}

func (n *Net) pipe(from, to *Host) *pipe {
	return &pipe{net: n, from: from.ip, to: to.ip, wake: sync.Cond{L: &n.mu}}
}

func parse(address string) (*net.TCPAddr, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(host)
	if ip == nil {
		return nil, &net.DNSError{Err: "there are no names in this network", Name: host, IsNotFound: true}
	}
	n, err := net.LookupPort("tcp", port)
	return &net.TCPAddr{IP: ip, Port: n}, err
}

func opError(op string, local, remote *net.TCPAddr, err error) error {
	e := &net.OpError{Op: op, Net: "tcp", Err: err}
	if local != nil {
		e.Source = local
	}
	if remote != nil {
		e.Addr = remote
	}
	return e
}
