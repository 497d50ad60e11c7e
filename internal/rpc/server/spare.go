package server

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
)

// sparing is a listener that keeps a spare descriptor for the moment when there are no
// others. A connection that waits to be accepted then takes the place of the spare one.
// If there is still no other descriptor, the connection is ended. So its client knows at
// once, and the server does not loop.
//
// A connection that was ended stays open as the spare descriptor. If it were closed, and
// another descriptor opened in its place, another goroutine might take that place in
// between.
type sparing struct {
	net.Listener
	told func(error) // called with the reason when a connection is ended

	mu     sync.Mutex
	spare  io.Closer // nil if another goroutine was faster
	closed bool
}

// Sparing returns a listener over ln that ends a connection at once if there is no
// descriptor for it, and calls told for each. Only one goroutine may call Accept.
func Sparing(ln net.Listener, told func(error)) net.Listener {
	s := &sparing{Listener: ln, told: told}
	s.keepSpare()
	return s
}

// Accept returns the next connection for which there is a descriptor.
func (s *sparing) Accept() (net.Conn, error) {
	for {
		nc, err := s.Listener.Accept()
		lack := errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
		why := err
		if lack && s.giveSpare() {
			// One connection waits, or the next one takes the place.
			nc, err = s.Listener.Accept()
		}
		kept := s.keepSpare()
		if err != nil || kept || !lack {
			return nc, err
		}
		s.endAsSpare(nc)
		s.told(why)
	}
}

// Close closes the listener and the spare descriptor.
func (s *sparing) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.giveSpare()
	return s.Listener.Close()
}

// giveSpare closes the spare descriptor. It says whether there was one.
func (s *sparing) giveSpare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil {
		return false
	}
	_ = s.spare.Close()
	s.spare = nil
	return true
}

// keepSpare opens a spare descriptor if there is none. It says whether there is one.
func (s *sparing) keepSpare() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.spare == nil && !s.closed {
		if f, err := os.Open(os.DevNull); err == nil {
			s.spare = f
		}
	}
	return s.spare != nil
}

// endAsSpare ends a connection and keeps it as the spare descriptor.
func (s *sparing) endAsSpare(nc net.Conn) {
	if c, ok := nc.(interface {
		CloseRead() error
		CloseWrite() error
	}); ok {
		_, _ = c.CloseRead(), c.CloseWrite() // both fail if the client has gone
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			s.spare = nc
			return
		}
	}
	_ = nc.Close()
}
