package memcached

import (
	"bytes"
	"cmp"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
)

// limitedConn follows the answers on a connection. It ends an answer that is too long,
// announces too great a length, or takes too long. gomemcache allocates whatever length
// is announced, up to 4 GiB, and restarts its timeout at every item.
type limitedConn struct {
	net.Conn
	most    int // bytes of one item
	timeout time.Duration

	terms    *loader.Terms
	term     loader.Term
	idle     bool // since the last answer
	scanner  loader.Scanner
	read     int // bytes of the current answer
	items    int // items in the answer; one was requested
	reserved loader.Reservation
	busy     error // there is no memory for an item
}

// lineOverhead is the number of bytes allowed for the lines around an item.
const lineOverhead = 1024

var (
	errTooLong = errors.New("the answer is too long")
	errSecond  = errors.New("the answer has a second item, and one was asked for")
	errEnded   = errors.New("the server has ended an idle connection, or its term is over")
)

// retryEndedConn makes a request, again and again while it was not sent because its connection of the pool
// has ended. Each time there is one such connection less.
func retryEndedConn(request func() error) (err error) {
	for {
		if err = request(); !errors.Is(err, errEnded) {
			return err
		}
	}
}

func limitConn(c net.Conn, o loader.OriginOptions, terms *loader.Terms) *limitedConn {
	limited := &limitedConn{Conn: c, most: o.MaxValue, timeout: o.Timeout, terms: terms, term: terms.Begin()}
	limited.reserved.Memory = o.Memory
	most := o.MaxValue + lineOverhead
	limited.scanner = loader.Scanner{Most: most, Keep: most, Line: limited.count}
	return limited
}

// Write begins a request. It resets the counts of the answer, and sets the deadline. If the
// server has ended the connection while it was idle, or its term is over, nothing is sent.
func (c *limitedConn) Write(p []byte) (int, error) {
	if c.idle && (c.terms.Over(c.term) || loader.Idle(c.Conn) != nil) {
		return 0, errEnded
	}
	c.idle = false
	c.read, c.items, c.busy = 0, 0, nil
	c.reserved.Free()
	c.scanner.Reset()
	if err := c.Conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetDeadline does nothing, because Write sets the deadline.
func (c *limitedConn) SetDeadline(time.Time) error { return nil }

func (c *limitedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.idle = true
	if c.read += n; c.read > c.most+lineOverhead || !c.scanner.Pass(p[:n]) {
		return 0, cmp.Or(c.busy, errTooLong)
	}
	if c.items > 1 {
		return 0, errSecond
	}
	return n, err
}

// count counts an item by its line: "VALUE key flags length".
func (c *limitedConn) count(line []byte, _ int) (length int, ok bool) {
	fields := bytes.Split(line, []byte{' '})
	if string(line) == "END" {
		c.reserved.Free() // the value is the caller's
	}
	if len(fields) <= 3 || string(fields[0]) != "VALUE" {
		return -1, true
	}
	c.items++
	n, err := strconv.ParseUint(string(fields[3]), 10, 32)
	if err == nil && n <= uint64(c.most) {
		c.busy = c.reserved.Take(int(n))
	}
	return int(n), c.busy == nil && (err != nil || n <= uint64(c.most))
}

// Close closes the connection.
func (c *limitedConn) Close() error {
	c.reserved.Free()
	return c.Conn.Close()
}
