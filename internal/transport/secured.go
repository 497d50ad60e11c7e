package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Secured is a TLS connection that behaves like a plain one: an answer is sent without
// waiting if there is room for it, and a reader in the middle of a frame looks again before it waits.
type Secured struct {
	*tls.Conn
	line *line
}

// Secure returns a TLS connection over nc, made by over. The caller does the handshake.
func Secure(nc net.Conn, over func(net.Conn) *tls.Conn) *Secured {
	l := &line{Conn: nc}
	return &Secured{Conn: over(l), line: l}
}

// line is the connection below TLS. Encrypted bytes cannot be taken back, so bytes that
// do not fit into the socket's buffer wait here. A write to the TLS connection need not
// wait: the rest goes out with the next write that may wait. It is one record at most.
type line struct {
	net.Conn
	raw syscall.RawConn // nil until the handshake is over, and without a file descriptor

	// Only for the reader.
	in     []byte
	n      int
	rerr   error
	looks  int  // how often to look before waiting
	rested bool // the reader has waited
	noWait bool // return errNothing instead of waiting
	readFn func(fd uintptr) bool

	mu      sync.Mutex // held while it writes
	fd      writer
	rest    []byte // encrypted and not written
	mayWait bool   // a write waits until it is done
}

// maxRest bounds the bytes that wait: one batch of answers, and alerts.
const maxRest = 1 << 20

// maxRecord is how many bytes TLS encrypts at once.
const maxRecord = 16 << 10

var (
	errRest = errors.New("the peer takes nothing, and too much waits for it")
	// errNothing is temporary: TLS goes on after it.
	errNothing error = nothing{}
)

type nothing struct{}

func (nothing) Error() string   { return "there is nothing to be read" }
func (nothing) Timeout() bool   { return false }
func (nothing) Temporary() bool { return true }

// adopt begins the line's own reads and writes. It returns false if nc is not over a file
// descriptor.
func (l *line) adopt(timeout time.Duration, beforeWait func() error) bool {
	sc, ok := l.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	l.readFn = l.tryRead
	l.fd.nc, l.fd.raw = l.Conn, raw
	l.fd.init(timeout, beforeWait)
	l.raw = raw
	return true
}

// Read reads what there is, or waits.
func (l *line) Read(b []byte) (int, error) {
	if l.raw == nil {
		return l.Conn.Read(b)
	}
	l.in, l.n, l.rerr = b, 0, nil
	err := l.raw.Read(l.readFn)
	l.in = nil
	if err == nil {
		err = l.rerr
	}
	return l.n, err
}

func (l *line) tryRead(fd uintptr) bool {
	left := l.looks
	l.looks = 0
	for {
		n, err := readNow(int(fd), l.in)
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN && l.noWait:
			l.rerr = errNothing
			return true
		case err == syscall.EAGAIN && left > 0:
			left--
			Yield()
		case err == syscall.EAGAIN:
			l.rested = true
			return false
		case err != nil:
			l.rerr = os.NewSyscallError("read", err)
			return true
		case n == 0:
			l.rerr = io.EOF
			return true
		default:
			l.n = n
			return true
		}
	}
}

// Write takes what TLS has encrypted.
func (l *line) Write(b []byte) (n int, err error) {
	if l.raw == nil {
		return l.Conn.Write(b)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mayWait {
		if err := l.fd.write(b); err != nil {
			return 0, err
		}
		return len(b), nil
	}
	if len(l.rest) == 0 {
		if n, err = l.fd.writeNow(b); err != nil {
			return n, err
		}
	}
	if len(l.rest)+len(b)-n > maxRest {
		return n, errRest
	}
	l.rest = append(l.rest, b[n:]...)
	return len(b), nil
}

// write writes the bytes that wait, and then all of b to the TLS connection over. It
// fails after the timeout.
func (l *line) write(over net.Conn, b []byte) error {
	if err := l.letWait(); err != nil {
		return err
	}
	var err error
	if len(b) > 0 {
		_, err = over.Write(b)
	}
	l.mu.Lock()
	l.mayWait = false
	l.mu.Unlock()
	return err
}

// letWait writes the bytes that wait, and lets writes wait from then on.
func (l *line) letWait() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.rest) > 0 {
		if err := l.fd.write(l.rest); err != nil {
			return err
		}
		l.rest = l.rest[:0]
		if cap(l.rest) > BufferSize {
			l.rest = nil
		}
	}
	l.mayWait = true
	return nil
}

// writeNow writes b to the TLS connection over, until some bytes wait.
func (l *line) writeNow(over net.Conn, b []byte) (n int, err error) {
	for n < len(b) && !l.behind() {
		part := b[n:min(len(b), n+maxRecord)]
		if _, err := over.Write(part); err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

// behind says whether bytes wait to be written.
func (l *line) behind() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.rest) > 0
}
