package surge

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// conn is one connection.
type conn struct {
	fd     int
	slot   uint32 // of its only request
	only   bool   // it has only one request
	closed bool
	dirty  bool   // it is in the list of those with bytes to write
	out    []byte // to write, behind the first sent bytes
	ends   []end  // of the requests in out
	sent   int
	begun  bool // bytes of the first request in out have been sent
	open   int  // requests that are not answered
	// The answer that is coming in: its beginning, and how many of its bytes are to come
	// after that.
	head [headSize]byte
	has  int
	left int
}

// end is where a request ends in a connection's buffer.
type end struct {
	at   int
	slot uint32
}

// dial connects, without blocking.
func (s *surge) dial() (*conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("a socket: %w", err)
	}
	if err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.cfg.Socket}); err == nil {
		err = unix.EpollCtl(s.poll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	c := &conn{fd: fd}
	s.byFD[int32(fd)] = c
	return c, nil
}

// open makes a connection for one request. The kernel refuses it if the queue of
// connections that the sidecar has not accepted is full.
func (s *surge) open(slot uint32, n uint64) error {
	c, err := s.dial()
	if errors.Is(err, unix.EAGAIN) {
		s.count(&s.r.Held, s.due[slot])
		return nil
	}
	if err != nil {
		return err
	}
	c.slot, c.only = slot, true
	c.out = appendHello(nil, firstID+slots+uint64(slot), s.cfg.Namespace)
	s.once = append(s.once, c)
	s.add(c, slot, n)
	return nil
}

// drop ends a connection.
func (s *surge) drop(c *conn) {
	c.closed = true
	delete(s.byFD, int32(c.fd))
	_ = unix.Close(c.fd)
}

// greet says HELLO on a connection that stays open. The answer is taken like any other.
func (s *surge) greet(c *conn) error {
	b := appendHello(nil, firstID+slots, s.cfg.Namespace)
	if n, err := unix.Write(c.fd, b); err != nil || n < len(b) {
		return fmt.Errorf("HELLO: %d of %d bytes are sent: %w", n, len(b), err)
	}
	return nil
}

// write writes what connections have to write. Requests that the kernel takes no byte of
// are held back.
func (s *surge) write() {
	now := s.now()
	keep := s.dirty[:0]
	for _, c := range s.dirty {
		if c.closed {
			continue
		}
		if s.flush(c, now); len(c.out) > 0 {
			keep = append(keep, c)
		} else {
			c.dirty = false
		}
	}
	s.dirty = keep
}

// shortRest is how many bytes are moved to the front of a buffer at most.
const shortRest = 64 << 10

// flush writes c.out. Of the requests that the kernel takes no byte of nothing is kept.
func (s *surge) flush(c *conn, now int64) {
	n, err := unix.Write(c.fd, c.out[c.sent:])
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return // the read tells why the connection has ended
	}
	c.sent += max(n, 0)
	begin, k := 0, 0 // the end of the requests that have begun, and their number
	for ; k < len(c.ends) && (c.sent > begin || k == 0 && c.begun); k++ {
		if due := s.due[c.ends[k].slot]; due >= s.from && (k > 0 || !c.begun) {
			_ = s.r.Lag.RecordValue(max(0, now-due))
		}
		begin = c.ends[k].at
	}
	for _, e := range c.ends[k:] {
		s.count(&s.r.Held, s.due[e.slot])
		c.open--
	}
	c.out, c.ends, c.begun = c.out[:begin], c.ends[:k], c.sent < begin
	switch rest := begin - c.sent; {
	case rest == 0:
		c.out, c.ends, c.sent = c.out[:0], c.ends[:0], 0
	case rest < shortRest:
		slot := c.ends[k-1].slot
		c.out = c.out[:copy(c.out, c.out[c.sent:])]
		c.ends = append(c.ends[:0], end{rest, slot})
		c.sent = 0
	default:
		c.ends = append(c.ends[:0], c.ends[k-1])
	}
}

// read takes what a connection has received.
func (s *surge) read(c *conn) error {
	for !c.closed {
		n, err := unix.Read(c.fd, s.buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			return nil
		case err != nil || n == 0:
			return s.ended(c, err)
		}
		s.take(c, s.buf[:n])
		if n < len(s.buf) {
			return nil
		}
	}
	return nil
}

// ended notes the end of a connection by the sidecar.
func (s *surge) ended(c *conn, err error) error {
	s.drop(c)
	if c.only {
		s.note(s.r.Refuse, &s.r.Busy, c.slot, s.now())
		return nil
	}
	return fmt.Errorf("the sidecar has ended a connection that was to stay open, with %d requests under way: %v",
		c.open, err)
}

// take takes bytes of answers.
func (s *surge) take(c *conn, b []byte) {
	for len(b) > 0 && !c.closed {
		if c.left == 0 {
			n := copy(c.head[c.has:], b)
			b = b[n:]
			if c.has += n; c.has < headSize {
				return
			}
			c.left = wire.LengthSize + wire.FrameLength(c.head[:]) - headSize
		}
		n := min(len(b), c.left)
		b = b[n:]
		if c.left -= n; c.left == 0 {
			c.has = 0
			s.answered(c, binary.BigEndian.Uint32(c.head[idAt:]), wire.Status(c.head[statusAt]))
		}
	}
}

// answered counts an answer.
func (s *surge) answered(c *conn, id uint32, status wire.Status) {
	slot := (id - firstID) % slots
	now := s.now()
	if id >= firstID+slots && status == wire.OK {
		return // a HELLO's
	}
	c.open--
	took := now - s.due[slot]
	switch {
	case status == wire.Busy:
		s.note(s.r.Refuse, &s.r.Busy, slot, now)
	case status != wire.OK:
		s.fail(fmt.Sprintf("the sidecar answers %s", status), now)
	case took > int64(s.cfg.Timeout):
		s.count(&s.r.Late, now)
	default:
		s.note(s.r.Serve, &s.r.Served, slot, now)
	}
	if c.only {
		s.drop(c)
	}
}

func (s *surge) fail(why string, now int64) {
	s.count(&s.r.Failed, now)
	if s.r.Failure == "" {
		s.r.Failure = why
	}
}
