package postgres

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// What an answer may have beside its rows. pgx reads notices and settings without
// end, and keeps the settings.
const (
	maxOther    = 256 << 10 // bytes of all messages but rows, of one answer
	maxSettings = 64 << 10  // bytes that a connection may tell of its settings, ever
)

var (
	errTooLong = errors.New("the answer is too long")
	errRows    = errors.New("the rows of the answer are too long")
)

// limited follows the messages of a connection, and ends it where the server says too
// much. A message is a byte, its kind, and a length of four bytes, which counts itself.
type limited struct {
	r io.Reader
	w io.Writer

	most     int // bytes of rows of one answer; below zero: any
	head     [5]byte
	begun    int // bytes of head
	skip     int // bytes of a message that are still to pass
	rows     int // bytes of the answer's
	other    int
	settings int
}

// Write begins a request, and so the count of its answer. A password is no request:
// the server might ask for it again and again.
func (l *limited) Write(p []byte) (int, error) {
	if len(p) > 0 && p[0] != 'p' {
		l.rows, l.other = 0, 0
	}
	return l.w.Write(p)
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	if err := l.pass(p[:n]); err != nil {
		return 0, err
	}
	return n, err
}

// pass goes through what was read as far as lengths go.
func (l *limited) pass(b []byte) error {
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

// count adds up a message, by the length that it states.
func (l *limited) count(kind byte, bytes int) error {
	if kind == 'D' {
		if l.rows += bytes; l.most >= 0 && l.rows > l.most {
			return errRows
		}
		return nil
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

// patient is a connection whose reads and writes have an end of their own: pgx gives a
// server that it leaves 15 s.
type patient struct {
	net.Conn
	most time.Duration // of one read or write

	mu          sync.Mutex // held while a deadline is set
	read, write time.Time  // as pgx has set them; zero: none
}

// until is the earlier one of a deadline and the longest wait.
func (c *patient) until(deadline time.Time) time.Time {
	end := time.Now().Add(c.most)
	if !deadline.IsZero() && deadline.Before(end) {
		return deadline
	}
	return end
}

func (c *patient) Read(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetReadDeadline(c.until(c.read))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

func (c *patient) Write(p []byte) (int, error) {
	c.mu.Lock()
	err := c.Conn.SetWriteDeadline(c.until(c.write))
	c.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// SetDeadline sets one that is not later than the longest wait from now: pgx sets such a
// one for its goodbye, all the while dropping what still comes.
func (c *patient) SetDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !t.IsZero() {
		t = c.until(t)
	}
	c.read, c.write = t, t
	return c.Conn.SetDeadline(t)
}

func (c *patient) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = t
	return c.Conn.SetReadDeadline(t)
}

func (c *patient) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write = t
	return c.Conn.SetWriteDeadline(t)
}
