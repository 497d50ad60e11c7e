package redisorigin

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// limitedConn reads along and refuses replies that state, together, more than
// what one request may bring. go-redis makes room for whatever is stated, before
// any of it has come, and a wrong length can be more than the machine has.
type limitedConn struct {
	net.Conn
	most     int    // bytes of all strings in the replies to a request
	bytes    int    // of these, left
	lines    int    // bytes of all lines, left of as many
	elements int    // of maxElements, left
	skip     int    // bytes of a string, and its end, that are still to pass
	line     []byte // its beginning: type and length
	long     int    // bytes of the line so far
}

const (
	maxElements = 1 << 16  // of all arrays, sets and maps in the replies to a request
	keysRoom    = 16 << 20 // bytes that a page of keys may have
	maxLine     = 64 << 10 // bytes
	keptLine    = 32       // bytes: more than a type and a length have
)

var errTooLong = errors.New("a reply states or has a length beyond the limit")

// limit wraps a connection so that go-redis can still look at it between
// requests, where it could before.
func limit(c net.Conn, maxValue int) net.Conn {
	limited := &limitedConn{Conn: c, most: maxValue + keysRoom}
	if raw, ok := c.(syscall.Conn); ok {
		return struct {
			*limitedConn
			syscall.Conn
		}{limited, raw}
	}
	return limited
}

// Write begins a request, and so the count of what its replies have.
func (c *limitedConn) Write(p []byte) (int, error) {
	c.bytes, c.lines, c.elements = c.most, c.most, maxElements
	return c.Conn.Write(p)
}

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.pass(p[:n]) {
		_ = c.Conn.Close() // go-redis may try once more
		return 0, errTooLong
	}
	return n, err
}

// pass goes through what was read (RESP2 and RESP3) as far as lengths go.
func (c *limitedConn) pass(b []byte) bool {
	for len(b) > 0 {
		if n := min(c.skip, len(b)); n > 0 {
			c.skip -= n
			b = b[n:]
			continue
		}
		part, rest, ended := bytes.Cut(b, []byte{'\n'})
		c.line = append(c.line, part[:min(len(part), keptLine-len(c.line))]...)
		if c.long += len(part); c.long > maxLine {
			return false
		}
		if ended {
			if !c.end() {
				return false
			}
			if c.lines -= c.long; c.lines < 0 {
				return false
			}
			c.line, c.long = c.line[:0], 0
		}
		b = rest
	}
	return true
}

// end takes a line that has come as a whole. One that states no length, or none
// that can be read, is go-redis's business.
func (c *limitedConn) end() bool {
	line := bytes.TrimSuffix(c.line, []byte{'\r'})
	if len(line) == 0 {
		return true
	}
	n, err := strconv.Atoi(string(line[1:]))
	left := &c.bytes
	switch line[0] {
	case '$', '=', '!': // strings
	case '*', '~', '%', '>', '|': // of elements
		left = &c.elements
	default:
		return true
	}
	if errors.Is(err, strconv.ErrRange) || c.long > keptLine || n > *left {
		return false
	}
	if err == nil && n >= 0 {
		*left -= n
		if left == &c.bytes {
			c.skip = n + len("\r\n")
		}
	}
	return true
}
