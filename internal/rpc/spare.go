package rpc

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// sparing is a listener that keeps a descriptor for the moment when there are no
// others. A connection that waits to be accepted then takes its place; if there is
// still no other one it is ended, so that its client knows at once, and the server
// does not turn in a circle.
//
// A connection that was ended stays open as the spare descriptor: one that is closed
// and another that is opened in its place may be lost to another goroutine in between.
type sparing struct {
	net.Listener
	told func(error) // a connection was ended, and why

	mu     sync.Mutex
	spare  io.Closer // nil where another goroutine was faster
	closed bool
}

// Sparing returns a listener over ln that ends connections at once for which there is
// no descriptor, and tells of each. It is for one goroutine that accepts.
func Sparing(ln net.Listener, told func(error)) net.Listener {
	s := &sparing{Listener: ln, told: told}
	s.keep()
	return s
}

// Accept returns the next connection for which there is a descriptor.
func (s *sparing) Accept() (net.Conn, error) {
	for {
		nc, err := s.Listener.Accept()
		lack := errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		why := err
		if lack && s.give() {
			nc, err = s.Listener.Accept() // one waits, or the next one takes the place
		}
		kept := s.keep()
		if err != nil || kept || !lack {
			return nc, err
		}
		s.end(nc)
		s.told(why)
	}
}

// Close closes the listener, and gives the spare descriptor back.
func (s *sparing) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.give()
	return s.Listener.Close()
}

// give gives the spare descriptor back. It says whether there was one.
func (s *sparing) give() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil {
		return false
	}
	_ = s.spare.Close()
	s.spare = nil
	return true
}

// keep opens a spare descriptor where there is none. It says whether there is one.
func (s *sparing) keep() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil && !s.closed {
		if f, err := os.Open(os.DevNull); err == nil {
			s.spare = f
		}
	}
	return s.spare != nil
}

// end ends a connection, which becomes the spare descriptor.
func (s *sparing) end(nc net.Conn) {
	if c, ok := nc.(interface {
		CloseRead() error
		CloseWrite() error
	}); ok {
		_, _ = c.CloseRead(), c.CloseWrite() // they fail where the client has gone
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.spare = nc
			return
		}
	}
	_ = nc.Close()
}
