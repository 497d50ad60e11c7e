package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
)

// Server accepts connections and serves each until it ends.
type Server struct {
	// NewHandler makes the handler of a new connection. An error refuses the connection.
	NewHandler func(net.Conn) (Handler, error)
	// Leaving is called when Serve accepts no more connections, before it ends those that
	// it has; they are served until Leaving returns. Nil: there is nothing to do.
	Leaving func()
	// Log gets one line for each connection that is refused or cannot be accepted.
	Log *slog.Logger

	shared    *shared
	accepting acceptQueue

	mu    sync.Mutex
	conns map[*Conn]struct{}
	wg    sync.WaitGroup
}

// New returns a server. It starts no goroutine.
func New(l Limits, log *slog.Logger, newHandler func(net.Conn) (Handler, error)) *Server {
	s := &Server{
		NewHandler: newHandler, Log: log,
		shared: newShared(l), accepting: acceptQueue{rate: l.NewRate}, conns: map[*Conn]struct{}{},
	}
	return s
}

// Limits returns the limits with every default filled in.
func (s *Server) Limits() Limits {
	l := s.shared.limits
	l.MaxConns = int(s.shared.maxConns.Load())
	return l
}

// SetMaxConns changes Limits.MaxConns. Connections above it stay until they end.
func (s *Server) SetMaxConns(n int) { s.shared.maxConns.Store(int64(n)) }

// Stats returns the counts so far.
func (s *Server) Stats() Stats {
	st, l := s.shared.stats(), s.Limits()
	st.Waiting, st.Limit = s.accepting.waiting(), int64(l.MaxConns)
	st.Buffers = l.Budget.Stats()
	st.BufferBytes = st.Buffers.Total()
	return st
}

// Sparing returns a listener over ln that ends a connection at once if there is no
// descriptor for it. Such a connection counts as rejected.
func (s *Server) Sparing(ln net.Listener) net.Listener {
	return Sparing(ln, func(err error) {
		s.shared.rejected.Add(1)
		s.Log.Warn("closed a connection for want of a file descriptor", "error", err)
	})
}

// Serve accepts connections from ln until ctx ends. Then it closes ln, calls Leaving, and
// answers the requests that have been read. It returns when all connections have ended,
// at the latest DrainTimeout after Leaving.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	turns, end := context.WithCancel(ctx)
	defer end()
	s.wg.Go(func() { s.sweep(turns) }) // ends with turns; shutdown waits for it
	var failed error
	for pause := time.Duration(0); ; {
		s.shared.arrivals.wait(turns.Done())
		nc, err := ln.Accept()
		if err == nil {
			pause = 0
			s.accept(turns, nc)
			continue
		}
		if ctx.Err() != nil {
			break
		}
		if errors.Is(err, net.ErrClosed) {
			failed = err
			break
		}
		// Other connections must end first.
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		s.Log.Warn("cannot accept a connection; trying again", "error", err, "in", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	end()
	if s.Leaving != nil {
		s.Leaving()
	}
	s.shutdown()
	return failed
}

// charged is a Handler that knows from the start to whom its connection is charged.
type charged interface {
	// Account returns the account, which ends with the connection; nil: none yet.
	Account(*quota.Budget) *quota.Account
}

func (s *Server) accept(turns context.Context, nc net.Conn) {
	s.mu.Lock()
	full := len(s.conns) >= s.Limits().MaxConns
	s.mu.Unlock()
	if full {
		s.shared.rejected.Add(1)
		_ = nc.Close()
		return
	}
	h, err := s.NewHandler(nc)
	if err != nil {
		s.shared.rejected.Add(1)
		s.Log.Warn("refused a connection", "error", err)
		_ = nc.Close()
		return
	}
	c := newConn(nc, s.shared, accountOf(h, s.shared.limits.Budget))
	c.handler = h
	s.mu.Lock()
	s.conns[c] = struct{}{}
	s.mu.Unlock()
	s.shared.accepted.Add(1)
	s.shared.open.Add(1)
	now, wait := s.accepting.enter(c)
	switch {
	case now:
		s.beginConn(c)
	case wait != nil:
		s.wg.Go(func() { s.accepting.beginConns(turns, wait, s.beginConn) }) // ends when no connection waits any more
	}
}

func accountOf(h Handler, b *quota.Budget) *quota.Account {
	if o, ok := h.(charged); ok {
		if a := o.Account(b); a != nil {
			return a
		}
	}
	return b.Open("", "")
}

// beginConn serves a connection on a new goroutine.
func (s *Server) beginConn(c *Conn) {
	s.wg.Go(func() { s.serve(c) }) // ends when the connection does; shutdown waits for it
}

// serve serves a connection until it ends.
func (s *Server) serve(c *Conn) {
	err := c.serve()
	s.mu.Lock()
	delete(s.conns, c)
	s.mu.Unlock()
	s.shared.open.Add(-1)
	c.handler.Close(err)
}

// shutdown ends all connections: in order, and after DrainTimeout by force.
func (s *Server) shutdown() {
	s.shared.end()
	s.each((*Conn).shutdown)
	force := time.AfterFunc(s.shared.limits.DrainTimeout, func() {
		s.each(func(c *Conn) {
			c.Kill()
			c.outbox.fail(errKilled) // what waits to read ends
		})
	})
	s.wg.Wait()
	force.Stop()
}

// sweepEvery is how long a connection is idle, or up to twice that, before its send buffer shrinks.
const sweepEvery = time.Second

// sweep makes the send buffers of idle connections small, now and then, until ctx ends.
func (s *Server) sweep(ctx context.Context) {
	every := time.NewTicker(sweepEvery)
	defer every.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-every.C:
			s.each((*Conn).sweep)
		}
	}
}

func (s *Server) each(f func(*Conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		f(c)
	}
}
