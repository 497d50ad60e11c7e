// Package polled is connections for tests in virtual time. Only tests use it.
package polled

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Conn is a connection over a file descriptor that it polls every millisecond instead
// of waiting, so that the connection works in virtual time.
type Conn struct {
	net.Conn // nil: no test asks for its addresses
	fd       int

	mu       sync.Mutex
	until    [2]time.Time // deadlines of reads and of writes
	closed   bool
	hears    time.Duration // how often a write that waits is told to go on
	onExtend func()        // called before a write deadline in the future is set
}

const (
	reads = iota
	writes
)

// Pair returns the two ends of a connection, which is closed when the test ends.
func Pair(t *testing.T) (near, far *Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if err := syscall.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
	}
	return &Conn{fd: fds[0]}, &Conn{fd: fds[1]}
}

// Set makes a write that waits look for room only every hears, and has onExtend called before a
// write deadline in the future is set.
func (p *Conn) Set(hears time.Duration, onExtend func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hears, p.onExtend = hears, onExtend
}

// each calls f every millisecond until f returns true.
func (p *Conn) each(way int, f func(fd uintptr) bool) error {
	var last time.Time
	for {
		p.mu.Lock()
		until, closed, hears := p.until[way], p.closed, p.hears
		p.mu.Unlock()
		now := time.Now()
		switch {
		case closed:
			return net.ErrClosed
		case !until.IsZero() && !now.Before(until):
			return os.ErrDeadlineExceeded
		case way == writes && now.Sub(last) < hears:
		case f(uintptr(p.fd)):
			return nil
		default:
			last = now
		}
		time.Sleep(time.Millisecond)
	}
}

func (p *Conn) Read(b []byte) (n int, err error) {
	e := p.each(reads, func(fd uintptr) bool {
		n, err = syscall.Read(int(fd), b)
		return err != syscall.EAGAIN
	})
	switch {
	case e != nil:
		return 0, e
	case n == 0 && err == nil:
		err = net.ErrClosed
	}
	return max(n, 0), err
}

func (p *Conn) Write(b []byte) (n int, err error) {
	e := p.each(writes, func(fd uintptr) bool {
		var more int
		more, err = syscall.Write(int(fd), b[n:])
		n += max(more, 0)
		return n == len(b) || err != nil && err != syscall.EAGAIN
	})
	if e != nil {
		err = e
	}
	return n, err
}

func (p *Conn) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	return syscall.Shutdown(p.fd, syscall.SHUT_RDWR)
}

func (p *Conn) setDeadline(t time.Time, ways ...int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, way := range ways {
		p.until[way] = t
	}
	return nil
}

func (p *Conn) SetDeadline(t time.Time) error     { return p.setDeadline(t, reads, writes) }
func (p *Conn) SetReadDeadline(t time.Time) error { return p.setDeadline(t, reads) }

func (p *Conn) SetWriteDeadline(t time.Time) error {
	p.mu.Lock()
	extends := p.onExtend
	p.mu.Unlock()
	if extends != nil && t.After(time.Now()) {
		extends()
	}
	return p.setDeadline(t, writes)
}

func (p *Conn) SyscallConn() (syscall.RawConn, error) { return raw{p}, nil }

type raw struct{ p *Conn }

func (r raw) Control(f func(fd uintptr)) error    { f(uintptr(r.p.fd)); return nil }
func (r raw) Read(f func(fd uintptr) bool) error  { return r.p.each(reads, f) }
func (r raw) Write(f func(fd uintptr) bool) error { return r.p.each(writes, f) }

// ReadSlowly reads n bytes, atOnce at a time, with a pause after each piece.
func ReadSlowly(r io.Reader, n, atOnce int, pause time.Duration) error {
	b := make([]byte, atOnce)
	for n > 0 {
		got, err := io.ReadFull(r, b[:min(n, atOnce)])
		if n -= got; err != nil {
			return errors.Join(err, errors.New("bytes are missing"))
		}
		time.Sleep(pause)
	}
	return nil
}
