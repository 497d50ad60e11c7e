package memcached

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"time"
)

// limitedConn reads along and ends an answer that is too long, states too great
// a length, or takes too long. gomemcache makes room for whatever length is
// stated, up to 4 GiB, and begins its time anew with every item.
type limitedConn struct {
	net.Conn
	most    int // bytes of an item
	timeout time.Duration

	read  int    // bytes of the answer
	items int    // in it; one was asked for
	skip  int    // bytes of an item, and its end, that are still to pass
	line  []byte // begun, and not ended
}

// room is for the lines around an item.
const room = 1024

var (
	errTooLong = errors.New("the answer is too long")
	errSecond  = errors.New("the answer has a second item, and one was asked for")
)

// Write begins a request, and so the count of its answer, and its time.
func (c *limitedConn) Write(p []byte) (int, error) {
	c.read, c.items, c.skip, c.line = 0, 0, 0, c.line[:0]
	if err := c.Conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetDeadline does nothing, since Write does it.
func (c *limitedConn) SetDeadline(time.Time) error { return nil }

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.read += n; c.read > c.most+room || !c.pass(p[:n]) {
		return 0, errTooLong
	}
	if c.items > 1 {
		return 0, errSecond
	}
	return n, err
}

// pass goes through what was read as far as lengths go: "VALUE key flags length".
func (c *limitedConn) pass(b []byte) bool {
	for len(b) > 0 {
		if n := min(c.skip, len(b)); n > 0 {
			c.skip -= n
			b = b[n:]
			continue
		}
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		c.line = append(c.line, part...) // at most what may be read
		if ended {
			line := bytes.TrimSuffix(c.line, []byte{'\r'})
			if fields := bytes.Split(line, []byte{' '}); len(fields) > 3 && string(fields[0]) == "VALUE" {
				c.items++
				n, err := strconv.ParseUint(string(fields[3]), 10, 32)
				if err == nil && n > uint64(c.most) {
					return false
				}
				c.skip = int(n) + len("\r\n")
			}
			c.line = c.line[:0]
		}
		b = rest
	}
	return true
}
