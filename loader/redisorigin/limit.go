package redisorigin

import (
	"bytes"
	"errors"
	"net"
	"strconv"
	"syscall"
)

// limitedConn reads along and refuses a reply that states a length beyond the
// limits. go-redis makes room for whatever is stated, before any of it has come,
// and a wrong length can be more than the machine has.
type limitedConn struct {
	net.Conn
	most int    // bytes of a string
	skip int    // bytes of a string, and its end, that are still to pass
	line []byte // its beginning: type and length
	long int    // bytes of the line so far
}

const (
	maxElements = 1 << 20  // of an array, a set, a map
	maxLine     = 64 << 10 // bytes
	keptLine    = 32       // bytes: more than a type and a length have
)

var errTooLong = errors.New("a reply states or has a length beyond the limit")

// limit wraps a connection so that go-redis can still look at it between
// requests, where it could before.
func limit(c net.Conn, most int) net.Conn {
	limited := &limitedConn{Conn: c, most: max(most, maxLine)}
	if raw, ok := c.(syscall.Conn); ok {
		return struct {
			*limitedConn
			syscall.Conn
		}{limited, raw}
	}
	return limited
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
	tooMuch := errors.Is(err, strconv.ErrRange)
	switch line[0] {
	case '$', '=', '!': // strings
		if n > c.most || tooMuch {
			return false
		}
		if err == nil && n >= 0 {
			c.skip = n + len("\r\n")
		}
	case '*', '~', '%', '>', '|': // elements
		return n <= maxElements && !tooMuch
	}
	return true
}
