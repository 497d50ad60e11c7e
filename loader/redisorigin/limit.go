package redisorigin

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// limitedConn follows the replies on a connection. It refuses replies whose announced
// lengths together exceed what one request may return. go-redis allocates whatever
// length is announced, before any of it has arrived, and a wrong length can exceed the
// memory of the machine.
type limitedConn struct {
	net.Conn
	most     int    // bytes of all strings in the replies to one request
	bytes    int    // remaining bytes of strings
	lines    int    // remaining bytes of lines; starts at the same number
	elements int    // remaining elements; starts at maxElements
	skip     int    // remaining bytes of a string and its line end
	line     []byte // the first bytes of the line: type and length
	long     int    // bytes of the line so far
}

const (
	maxElements = 1 << 16  // of all arrays, sets and maps in the replies to one request
	keysRoom    = 16 << 20 // bytes of a page of keys
	maxLine     = 64 << 10 // bytes
	keptLine    = 32       // bytes; more than a type and a length need
)

var errTooLong = errors.New("a reply states or has a length beyond the limit")

// limit wraps a connection. If go-redis could inspect c between requests (syscall.Conn),
// it can also inspect the result.
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

// Write begins a request, and resets the counts of its replies.
func (c *limitedConn) Write(p []byte) (int, error) {
	c.bytes, c.lines, c.elements = c.most, c.most, maxElements
	return c.Conn.Write(p)
}

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.pass(p[:n]) {
		_ = c.Conn.Close() // go-redis may try again
		return 0, errTooLong
	}
	return n, err
}

// pass follows the bytes read (RESP2 and RESP3), as far as needed to find lengths.
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

// end handles a complete line. A line without a length, or with an invalid one, is left
// to go-redis.
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
