package memcached

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"time"
)

// limitedConn follows the answers on a connection. It ends an answer that is too long,
// announces too great a length, or takes too long. gomemcache allocates whatever length
// is announced, up to 4 GiB, and restarts its timeout at every item.
type limitedConn struct {
	net.Conn
	most    int // bytes of one item
	timeout time.Duration

	read  int    // bytes of the current answer
	items int    // items in the answer; one was requested
	skip  int    // remaining bytes of an item and its line end
	line  []byte // the incomplete line
}

// room is the number of bytes allowed for the lines around an item.
const room = 1024

var (
	errTooLong = errors.New("the answer is too long")
	errSecond  = errors.New("the answer has a second item, and one was asked for")
)

// Write begins a request. It resets the counts of the answer, and sets the deadline.
func (c *limitedConn) Write(p []byte) (int, error) {
	c.read, c.items, c.skip, c.line = 0, 0, 0, c.line[:0]
	if err := c.Conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetDeadline does nothing, because Write sets the deadline.
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

// pass follows the bytes read, as far as needed to find lengths: "VALUE key flags
// length".
func (c *limitedConn) pass(b []byte) bool {
	for len(b) > 0 {
		if n := min(c.skip, len(b)); n > 0 {
			c.skip -= n
			b = b[n:]
			continue
		}
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		c.line = append(c.line, part...) // bounded by what may be read
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
