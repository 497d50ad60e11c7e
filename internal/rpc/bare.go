package rpc

import (
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// bare is a descriptor that Go's poller does not know, since each of its events would wake
// the poller's thread too. Only the connection's loop can wait for it. Before anything else
// waits, the connection is attached: it has a net.Conn from then on, and its loop lets it go
// after the present batch.
type bare struct {
	is atomic.Bool // the connection has no net.Conn

	mu sync.Mutex // held while anything but the loop uses fd, and while is changes
	fd int        // has meaning while held is true
	// The descriptor is open: until the loop lets the connection go.
	held bool
}

// detach makes the connection bare. It returns false, and changes nothing, if that is not
// possible: the connection is no plain socket, or there is no descriptor.
func (s *socket) detach() bool {
	if !isPlain(s.nc) || s.raw == nil {
		return false
	}
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	fd, err := -1, error(nil)
	if e := s.raw.Control(func(old uintptr) { fd, err = dup(int(old)) }); e != nil || err != nil {
		return false
	}
	s.send.shrink(fd)
	s.bare.fd, s.bare.held = fd, true
	s.bare.is.Store(true)
	_ = s.nc.Close()
	s.nc, s.raw, s.fd.nc, s.fd.raw = nil, nil, nil, nil
	return true
}

// plain says whether the connection could be bare, and is not.
func (s *socket) plain() bool {
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	return isPlain(s.nc) && !s.bare.is.Load()
}

// isPlain says whether a connection is no more than its descriptor.
func isPlain(nc net.Conn) bool {
	switch nc.(type) {
	case *net.UnixConn, *net.TCPConn:
		return true
	}
	return false
}

// attach makes a net.Conn of a bare connection. Its loop is told.
func (s *socket) attach() error {
	if !s.bare.is.Load() {
		return nil
	}
	err := s.attachBare()
	if err == nil && s.onAttach != nil {
		s.onAttach()
	}
	return err
}

func (s *socket) attachBare() error {
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	if !s.bare.is.Load() {
		return nil
	}
	if !s.bare.held { // another connection may have the number by now
		return net.ErrClosed
	}
	fd, err := dup(s.bare.fd)
	if err != nil {
		return os.NewSyscallError("dup", err)
	}
	f := os.NewFile(uintptr(fd), "app")
	nc, err := net.FileConn(f)
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	s.take(nc)
	s.bare.is.Store(false)
	return nil
}

// writeBare writes as much of b as is possible without waiting. It returns false if the
// connection is not bare.
func (s *socket) writeBare(b []byte) (n int, was bool, err error) {
	if !s.bare.is.Load() {
		return 0, false, nil
	}
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	if !s.bare.is.Load() {
		return 0, false, nil
	}
	if !s.send.fits(len(b)) {
		s.send.grow(s.bare.fd, len(b))
	}
	for n < len(b) {
		more, err := writeNow(s.bare.fd, b[n:])
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN && s.send.grow(s.bare.fd, len(b)-n):
		case err == syscall.EAGAIN:
			return n, true, nil
		case err != nil:
			return n, true, err
		default:
			n += more
		}
	}
	return n, true, nil
}

// shutLocked ends directions of a bare connection. The lock is held.
func (s *socket) shutLocked(how int) error {
	if !s.bare.held {
		return nil // it has ended
	}
	return syscall.Shutdown(s.bare.fd, how)
}

// letGo closes the bare descriptor, which no loop waits for any more.
func (s *socket) letGo() {
	s.bare.mu.Lock()
	defer s.bare.mu.Unlock()
	if s.bare.held {
		_ = syscall.Close(s.bare.fd)
		s.bare.held = false
	}
}

// dup returns another descriptor of what fd stands for.
func dup(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) }
