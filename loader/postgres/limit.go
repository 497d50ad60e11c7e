package postgres

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Limits for the parts of an answer other than rows. pgx reads any number of notices and
// settings, and keeps the settings.
const (
	maxOther    = 256 << 10 // bytes of all messages of one answer, except rows
	maxSettings = 64 << 10  // bytes of settings in a connection's lifetime
	maxDrained  = 256 << 10 // bytes that are read from a connection that pgx ends
)

// rowOverhead is the number of bytes that a row's message may have in addition to the value:
// names, and lengths of other columns.
const rowOverhead = 64 << 10

var (
	errTooLong = errors.New("the answer is too long")
	errRows    = errors.New("the rows of the answer are too long")
)

// bound limits a connection: the bytes of a value, the bytes of the rows of an answer, their
// memory, and the time of each read and write.
func bound(c *pgconn.Config, value, rows int, timeout time.Duration, memory loader.Memory) {
	build := c.BuildFrontend // of parseDSN
	c.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		l := &messageLimiter{r: r, w: w, maxRow: value + rowOverhead, maxRows: rows, conn: timeoutConnBelow(w)}
		if l.conn != nil {
			l.conn.messages = l
		}
		f := build(l, l)
		f.SetMaxBodyLen(value + rowOverhead)
		return f
	}
	dial := (&net.Dialer{Timeout: timeout, KeepAlive: 5 * time.Minute}).DialContext
	c.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &timeoutConn{Conn: conn, maxWait: timeout, reserved: loader.Reservation{Memory: memory}}, nil
	}
}

// messageLimiter follows the messages of a connection, and ends it if the server sends too
// much. A message is one byte, its kind, and a length of four bytes, which includes
// itself.
type messageLimiter struct {
	r io.Reader
	w io.Writer

	maxRow   int          // bytes of a row; zero: no limit
	maxRows  int          // of rows in one answer; below zero: no limit
	conn     *timeoutConn // has the memory of the rows
	head     [5]byte
	begun    int           // bytes of head read so far
	skip     int           // remaining bytes of a message
	rows     int           // bytes of rows in the current answer
	other    int           // bytes of its other messages
	settings int           // bytes of settings in all answers
	stream   *bufio.Reader // of copied data; nil: none has begun
	refused  error         // why no more is read
}

// streamBuffer is the buffer of a stream, in bytes.
const streamBuffer = 32 << 10

// beginStream says that the next request begins a stream of copied data. A message of that may have any length:
// its reader must read it in parts. So each Read ends with the head of a message, or with its body.
func (l *messageLimiter) beginStream() {
	l.stream = bufio.NewReaderSize(&turnReader{r: l.r}, streamBuffer)
	l.r = l.stream
}

// Write begins a request, and resets the counts of its answer. A password is not a
// request: the server might ask for it again and again.
func (l *messageLimiter) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] != 'p' {
		l.rows, l.other = 0, 0
	}
	return l.w.Write(p)
}

func (l *messageLimiter) Read(p []byte) (int, error) {
	if l.stream != nil {
		part := l.skip
		if part == 0 {
			part = len(l.head) - l.begun
		}
		p = p[:min(part, len(p))]
	}
	n, err := l.r.Read(p)
	if err := l.pass(p[:n]); err != nil {
		l.refused = err
		if l.conn != nil { // else pgx would read for seconds what else comes
			_ = l.conn.Close()
		}
		return 0, err
	}
	return n, err
}

// pass follows the bytes read, as far as needed to find lengths.
func (l *messageLimiter) pass(b []byte) error {
	for len(b) > 0 {
		if n := min(l.skip, len(b)); n > 0 {
			l.skip -= n
			b = b[n:]
			continue
		}
		n := copy(l.head[l.begun:], b)
		b = b[n:]
		if l.begun += n; l.begun < len(l.head) {
			return nil
		}
		l.begun = 0
		length := int(binary.BigEndian.Uint32(l.head[1:]))
		if length < 4 {
			return errTooLong
		}
		l.skip = length - 4
		if err := l.count(l.head[0], length+1); err != nil {
			return err
		}
	}
	return nil
}

// count adds a message with its announced length, in bytes.
func (l *messageLimiter) count(kind byte, bytes int) error {
	if kind == 'd' && l.stream != nil {
		return nil
	}
	if kind == 'D' {
		if l.rows += bytes; l.maxRows >= 0 && l.rows > l.maxRows || l.maxRow > 0 && bytes > l.maxRow {
			return errRows
		}
		return l.conn.takeBytes(bytes)
	}
	if kind == 'Z' { // the end of an answer, whose rows have been read
		l.conn.free()
	}
	if kind == 'S' {
		l.settings += bytes
	}
	l.other += bytes
	if l.other > maxOther || l.settings > maxSettings {
		return errTooLong
	}
	return nil
}

// timeoutConn is a connection with a limit of its own for each read and write: pgx gives 15
// s to a server that it disconnects from.
type timeoutConn struct {
	net.Conn
	messages *messageLimiter

	mu          sync.Mutex    // held while a deadline is set, and guards what follows
	maxWait     time.Duration // of one read or write; zero: no limit
	read, write time.Time     // deadlines set by pgx; zero: none
	reserved    loader.Reservation
	closed      bool
	ends        bool // pgx disconnects
	drained     int  // bytes read since
}

// timeoutConnBelow returns the timeoutConn that bytes are written to, below TLS or not; nil: there is none.
func timeoutConnBelow(w io.Writer) *timeoutConn {
	for {
		if p, ok := w.(*timeoutConn); ok {
			return p
		}
		over, ok := w.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		w = over.NetConn()
	}
}

// takeBytes charges n bytes of the present answer. A nil timeoutConn has no bound.
func (c *timeoutConn) takeBytes(n int) error {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	return c.reserved.Take(n)
}

// free gives back what the answer has taken.
func (c *timeoutConn) free() {
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.reserved.Free()
	}
}

// Close closes the connection.
func (c *timeoutConn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.reserved.Free()
	c.mu.Unlock()
	return c.Conn.Close()
}

// NetConn returns the connection without limits.
func (c *timeoutConn) NetConn() net.Conn { return c.Conn }

// waitAtMost sets the maximum wait of the reads and writes that follow; zero: none.
func (c *timeoutConn) waitAtMost(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maxWait = d
}

// until returns the earlier of a deadline and the end of the maximum wait.
func (c *timeoutConn) until(deadline time.Time) time.Time {
	if c.maxWait == 0 {
		return deadline
	}
	end := time.Now().Add(c.maxWait)
	if !deadline.IsZero() && deadline.Before(end) {
		return deadline
	}
	return end
}

func (c *timeoutConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetReadDeadline(c.until(c.read))
	if c.drained >= maxDrained {
		err = net.ErrClosed
	}
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ends {
		c.drained += n
	}
	return n, err
}

func (c *timeoutConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.until(c.write))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetDeadline sets a deadline that is at most the maximum wait from now. pgx sets such a
// deadline when it disconnects, and discards what arrives until then: here maxDrained of it.
func (c *timeoutConn) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.IsZero() {
		c.ends = t.After(time.Now())
		t = c.until(t)
	}
	c.read, c.write = t, t
	return c.Conn.SetDeadline(t)
}

func (c *timeoutConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c *timeoutConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}
