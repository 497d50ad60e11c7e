package server

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/transport"
)

// errPass says that a descriptor cannot be passed now.
var errPass = errors.New("a descriptor is passed over a Unix socket alone, and with no other answer under way")

// Pass writes what Out has, and then a frame with which a descriptor goes. It is for
// connections that have no other request under way: nothing else may be written meanwhile.
// The Passed tells when the descriptor has been received; the caller must end it, also after an
// error.
func (c *Conn) Pass(frame []byte, file *os.File) (*Passed, error) {
	uc, ok := c.socket.Conn.(*net.UnixConn)
	if !ok {
		return nil, errPass
	}
	if err := c.flush(); err != nil {
		return nil, err
	}
	p, err := passedOver(uc)
	if err != nil {
		return nil, err
	}
	return p, c.outbox.pass(uc, frame, file, c.server.limits.WriteTimeout)
}

// pass writes a frame with a descriptor, and then what has been queued meanwhile.
func (o *outbox) pass(uc *net.UnixConn, frame []byte, file *os.File, timeout time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if o.writing || !o.queue.empty() {
		return errPass
	}
	o.writing = true
	o.mu.Unlock()
	err := writeWith(uc, frame, file, timeout)
	o.mu.Lock()
	o.sent.Add(int64(len(frame)))
	if err != nil {
		o.failLocked(err)
	}
	if o.moreLocked() {
		o.writeLocked(o.queue.pop(), false)
	} else {
		o.doneLocked()
	}
	return o.err
}

// writeWith writes a frame with a descriptor.
func writeWith(uc *net.UnixConn, frame []byte, file *os.File, timeout time.Duration) error {
	if err := uc.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	n, _, err := uc.WriteMsgUnix(frame, syscall.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(frame) {
		_, err = uc.Write(frame[n:])
	}
	return errors.Join(err, uc.SetWriteDeadline(time.Time{}))
}

// Passed is a descriptor that has been written to a Unix socket. The system counts it against
// this process until the peer has received it, or has closed its end, also if this process has
// closed the connection: so a Passed keeps the socket.
type Passed struct{ fd int }

func passedOver(uc *net.UnixConn) (*Passed, error) {
	raw, err := uc.SyscallConn()
	if err != nil {
		return nil, err
	}
	p := &Passed{}
	e := raw.Control(func(fd uintptr) { p.fd, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	return p, errors.Join(err, e)
}

// Received reports whether the peer has read all that was written to it, or has closed its end.
func (passed *Passed) Received() bool { return transport.Unsent(passed.fd) == 0 }

// Leave tells the peer that the connection has ended. It is called when this process has closed
// the connection, and the descriptor has not been received.
func (passed *Passed) Leave() { _ = unix.Shutdown(passed.fd, unix.SHUT_RDWR) }

// End gives the socket up.
func (passed *Passed) End() { _ = unix.Close(passed.fd) }
