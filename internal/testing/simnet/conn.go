package simnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipe is one direction of a connection. The network's lock guards all its fields.
type pipe struct {
	net      *Net
	from, to string
	reader   *conn
	wake     sync.Cond // signals every change of the fields below

	flight  []segment // sent but not arrived, in order
	timer   *time.Timer
	arrived []byte
	size    int   // bytes in flight, plus bytes arrived but not read
	end     error // what a read returns after the bytes: io.EOF or a reset
	sentEnd bool
	broken  error // what a write returns
}

// segment is some bytes, or the end of the stream.
type segment struct {
	b   []byte
	end error
	at  time.Time
}

// send starts the travel of a segment.
func (p *pipe) send(s segment) {
	s.at = time.Now().Add(p.net.streamDelay(p.from, p.to))
	p.size += len(s.b)
	p.sentEnd = p.sentEnd || s.end != nil
	p.flight = append(p.flight, s)
	if len(p.flight) == 1 {
		p.timer = time.AfterFunc(time.Until(s.at), p.deliver)
	}
}

// deliver makes the segments that are due arrive, in order. The pipe waits in n.held
// while the link is cut or the process at either end is stopped.
func (p *pipe) deliver() {
	n := p.net
	n.mu.Lock()
	defer n.mu.Unlock()
	defer p.wake.Broadcast()
	for len(p.flight) > 0 {
		s := p.flight[0]
		if d := time.Until(s.at); d > 0 {
			p.timer = time.AfterFunc(d, p.deliver)
			return
		}
		if n.isCut(p.from, p.to) || n.still(p.from, p.to) {
			n.held = append(n.held, p)
			return
		}
		if p.flight = p.flight[1:]; len(p.flight) == 0 {
			p.flight = nil
		}
		switch {
		case s.end != nil:
			p.ended(s.end)
		case p.reader.closed:
			// The reader has closed: reset the writer, as TCP does.
			p.reader.out.reset()
		case len(p.arrived) == 0:
			p.arrived = s.b
		default:
			p.arrived = append(p.arrived, s.b...)
		}
	}
}

// ended handles the arrival of the end of the stream.
func (p *pipe) ended(end error) {
	if p.end == nil {
		p.end = end
	}
	if end != io.EOF {
		out := p.reader.out
		out.broken = os.NewSyscallError("write", syscall.ECONNRESET)
		out.wake.Broadcast()
	}
}

// reset sends a reset, unless the pipe is reset already.
func (p *pipe) reset() {
	if p.broken == nil {
		p.broken = syscall.ECONNRESET
		p.send(segment{end: os.NewSyscallError("read", syscall.ECONNRESET)})
	}
}

func (p *pipe) wakeAll() {
	p.net.mu.Lock()
	defer p.net.mu.Unlock()
	p.wake.Broadcast()
}

// conn is one end of a connection.
type conn struct {
	host          *Host
	local, remote *net.TCPAddr
	in, out       *pipe

	// The network's lock guards the fields below.
	closed      bool
	read, write deadline
}

type deadline struct {
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) set(t time.Time, p *pipe) {
	if d.timer != nil {
		d.timer.Stop()
	}
	d.at, d.timer = t, nil
	if left := time.Until(t); !t.IsZero() && left > 0 {
		d.timer = time.AfterFunc(left, p.wakeAll)
	}
	p.wake.Broadcast()
}

func (c *conn) Read(b []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	p := c.in
	for {
		switch {
		case c.closed:
			return 0, c.error("read", net.ErrClosed)
		case c.read.over():
			return 0, c.error("read", os.ErrDeadlineExceeded)
		case len(b) == 0:
			return 0, nil
		case len(p.arrived) > 0:
			k := copy(b, p.arrived)
			if p.arrived = p.arrived[k:]; len(p.arrived) == 0 {
				p.arrived = nil // among thousands of connections most are idle
			}
			p.size -= k
			p.wake.Broadcast()
			return k, nil
		case p.end == io.EOF:
			return 0, io.EOF
		case p.end != nil:
			return 0, c.error("read", p.end)
		}
		p.wake.Wait()
	}
}

func (c *conn) Write(b []byte) (int, error) {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	p := c.out
	for done := 0; ; {
		switch {
		case c.closed:
			return done, c.error("write", net.ErrClosed)
		case c.write.over():
			return done, c.error("write", os.ErrDeadlineExceeded)
		case p.broken != nil:
			return done, c.error("write", p.broken)
		case p.sentEnd:
			return done, c.error("write", os.NewSyscallError("write", syscall.EPIPE))
		case done == len(b):
			return done, nil
		case p.size < window:
			k := min(len(b)-done, window-p.size)
			p.send(segment{b: append([]byte(nil), b[done:done+k]...)})
			done += k
		default:
			p.wake.Wait()
		}
	}
}

// Close ends both directions. Bytes that were written still arrive. If this end has
// unread bytes, the peer gets a reset instead of an end.
func (c *conn) Close() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.error("close", net.ErrClosed)
	}
	c.close()
	return nil
}

func (c *conn) close() {
	unread := len(c.in.arrived) > 0
	c.shut()
	switch {
	case unread:
		c.out.reset()
	case !c.out.sentEnd:
		c.out.send(segment{end: io.EOF})
	}
}

// reset ends a connection that was never accepted.
func (c *conn) reset() {
	c.shut()
	c.out.reset()
}

func (c *conn) shut() {
	c.closed = true
	c.in.arrived = nil
	c.read.set(time.Time{}, c.in)
	c.write.set(time.Time{}, c.out)
	c.host.conns = remove(c.host.conns, c)
}

// CloseWrite ends the outgoing direction.
func (c *conn) CloseWrite() error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	switch {
	case c.closed:
		return c.error("close", net.ErrClosed)
	case c.out.broken != nil:
		return c.error("close", c.out.broken)
	case !c.out.sentEnd:
		c.out.send(segment{end: io.EOF})
		c.out.wake.Broadcast()
	}
	return nil
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) SetDeadline(t time.Time) error      { return c.setDeadlines(t, true, true) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.setDeadlines(t, true, false) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(t, false, true) }

func (c *conn) setDeadlines(t time.Time, read, write bool) error {
	c.host.net.mu.Lock()
	defer c.host.net.mu.Unlock()
	if c.closed {
		return c.error("set", net.ErrClosed)
	}
	if read {
		c.read.set(t, c.in)
	}
	if write {
		c.write.set(t, c.out)
	}
	return nil
}

func (c *conn) error(op string, err error) error { return opError(op, c.local, c.remote, err) }
