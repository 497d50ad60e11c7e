package peers

import (
	"errors"
	"io"
	"net"
	"sync"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Link forwards bytes and datagrams until Hang. Then it keeps the bytes and reports no
// error, like a network with an unplugged cable. Close ends it and its goroutines.
type Link struct {
	mu     sync.Mutex
	gate   chan struct{} // closed, unless the link hangs
	closed bool
	open   map[io.Closer]struct{}
	wg     sync.WaitGroup
}

// NewLink returns a link without ends.
func NewLink() *Link {
	l := &Link{gate: make(chan struct{}), open: map[io.Closer]struct{}{}}
	close(l.gate)
	return l
}

// Stream forwards connections from one address to another.
func (l *Link) Stream(network, from, to string) error {
	ln, err := net.Listen(network, from)
	if err != nil {
		return err
	}
	if !l.own(ln) {
		return net.ErrClosed
	}
	l.wg.Go(func() { // ends with Close
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial(network, to)
			if err != nil {
				_ = in.Close()
				continue
			}
			if !l.own(in) || !l.own(out) {
				_, _ = in.Close(), out.Close()
				return
			}
			l.wg.Go(func() { l.pass(in, out) }) // both end with their connections
			l.wg.Go(func() { l.pass(out, in) })
		}
	})
	return nil
}

// Datagrams forwards datagrams from one address to another.
func (l *Link) Datagrams(from, to string) error {
	in, err := net.ListenPacket("udp", from)
	if err != nil {
		return err
	}
	out, err := net.Dial("udp", to)
	if err != nil {
		_ = in.Close()
		return err
	}
	if !l.own(in) || !l.own(out) {
		_, _ = in.Close(), out.Close()
		return net.ErrClosed
	}
	l.wg.Go(func() { // ends with Close
		buf := make([]byte, 64<<10)
		for {
			n, _, err := in.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case <-l.passes():
				_, _ = out.Write(buf[:n]) // a datagram may be lost
			default:
			}
		}
	})
	return nil
}

// own registers what Close must close. It returns false if the link is closed already.
func (l *Link) own(c io.Closer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		_ = c.Close()
		return false
	}
	l.open[c] = struct{}{}
	return true
}

func (l *Link) passes() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gate
}

func (l *Link) pass(from, to net.Conn) {
	defer func() {
		_, _ = from.Close(), to.Close()
		l.mu.Lock()
		delete(l.open, from)
		l.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		<-l.passes()
		if _, werr := to.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// Hang stops all forwarding.
func (l *Link) Hang() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gate = make(chan struct{})
}

// Close ends the link and all its connections.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	for c := range l.open {
		_ = c.Close()
	}
	select {
	case <-l.gate:
	default:
		close(l.gate)
	}
	l.mu.Unlock()
	l.wg.Wait()
}

// linked puts a link in front of each host of a cluster that is not started yet. The
// other hosts find the host at another loopback address.
func (c *Cluster) linked() (*Link, error) {
	l := NewLink()
	for _, h := range c.hosts {
		if err := h.o.Place.behind(l); err != nil {
			l.Close()
			return nil, err
		}
	}
	c.introduce()
	return l, nil
}

// behind puts a place behind a link.
func (p *Place) behind(l *Link) error {
	_, port, err := net.SplitHostPort(p.Bind)
	if err != nil {
		return err
	}
	for range 100 {
		front, err := testenv.FindAddress()
		if err != nil {
			return err
		}
		host, _, _ := net.SplitHostPort(front)
		if !testenv.Free(net.JoinHostPort(host, port)) || !testenv.Free(next(net.JoinHostPort(host, port))) {
			continue
		}
		p.Advertise = host
		if err := l.Datagrams(p.address(), p.Bind); err != nil {
			return err
		}
		if err := l.Stream("tcp", p.address(), p.Bind); err != nil {
			return err
		}
		return l.Stream("tcp", next(p.address()), next(p.Bind))
	}
	return errors.New("no free address on loopback for a link")
}
