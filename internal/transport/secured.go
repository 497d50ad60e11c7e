package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
)

// Secured is a TLS connection that behaves like a plain one: an answer is sent without
// waiting if there is room for it, and a reader in the middle of a frame looks again before it waits.
type Secured struct {
	*tls.Conn
	line *line
}

// Secure returns a TLS connection over nc, made by over. The caller does the handshake.
func Secure(nc net.Conn, over func(net.Conn) *tls.Conn) *Secured {
	l := &line{Conn: nc, reads: -1}
	return &Secured{Conn: over(l), line: l}
}

// line is the connection below TLS. Encrypted bytes cannot be taken back, so bytes that
// do not fit into the socket's buffer wait here. A write to the TLS connection need not
// wait: the rest goes out with the next write that may wait. It is one record at most.
type line struct {
	net.Conn
	reads int // the descriptor while its reader reads without waiting; else -1

	mu      sync.Mutex // held while it writes
	fd      *writer    // nil until the handshake is over, and without a file descriptor
	rest    []byte     // encrypted and not written
	mayWait bool       // a write waits until it is done
}

// maxRest bounds the bytes that wait: one batch of answers, and alerts.
const maxRest = 1 << 20

// maxRecord is how many bytes TLS encrypts at once.
const maxRecord = 16 << 10

var errRest = errors.New("the peer takes nothing, and too much waits for it")

// Read reads what there is, or waits. While readNow reads it does not wait: EAGAIN is a temporary error
// to TLS, which goes on after it.
func (l *line) Read(b []byte) (int, error) {
	if l.reads < 0 {
		return l.Conn.Read(b)
	}
	n, err := readNow(l.reads, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(0, n), err
}

// readNow reads from the TLS connection over, as readNow does from a plain one.
func (l *line) readNow(over net.Conn, fd int, b []byte) (int, error) {
	l.reads = fd
	n, err := over.Read(b)
	if l.reads = -1; n > 0 {
		err = nil // that of the next read too
	}
	return n, err
}

// Write takes what TLS has encrypted.
func (l *line) Write(b []byte) (n int, err error) {
	if l.fd == nil {
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
