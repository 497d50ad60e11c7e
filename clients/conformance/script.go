package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// patience is how long connections may take to end once the client has gone.
const patience = 5 * time.Second

// notPlayed is what is wrong if the client has not connected.
const notPlayed = "the conversation was not played: no connection came"

// scripted is a server that plays a script, once.
type scripted struct {
	of     *conversation
	path   string
	gather bool // the player's calls of one tick share a write

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	ln      net.Listener // nil: away
	conns   []*conn
	came    int // requests read
	named   map[string]*asked
	keys    map[string]bool // of the requests of a conversation in which a connection is cut
	changed chan struct{}   // closed and made anew when named or came changes
	wrong   []string
	over    bool
	emptied chan struct{} // closed when all connections that were made are accepted
}

// asked is a request that has come.
type asked struct {
	wire.Request
	frame []byte
	read  int // which read of the connection brought its end
	began int // and which its first byte
	conn  *conn
}

func newScripted(c *conversation, path string, gather bool) (*scripted, error) {
	s := &scripted{
		of: c, path: path, gather: gather, named: map[string]*asked{}, keys: map[string]bool{},
		changed: make(chan struct{}), emptied: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s, s.listen()
}

func (s *scripted) listen() error {
	ln, err := net.Listen("unix", s.path)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.wrong != nil {
		return ln.Close()
	}
	s.ln = ln
	s.wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			if nc.RemoteAddr().String() == s.last() {
				_ = nc.Close()
				close(s.emptied)
				return
			}
			s.accept(nc)
		}
	})
	return nil
}

func (s *scripted) accept(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over || s.wrong != nil {
		_ = nc.Close()
		return
	}
	c := &conn{Conn: nc, s: s, n: len(s.conns), requests: make(chan *asked, 1<<14), left: make(chan uint64, 1)}
	if c.n < len(s.of.Server.Script) {
		c.cut = cutOf(s.of.Server.Script[c.n])
	}
	s.conns = append(s.conns, c)
	s.wg.Go(c.read)
	s.wg.Go(c.play)
}

// away takes the socket away.
func (s *scripted) away() {
	s.mu.Lock()
	ln := s.ln
	s.ln = nil
	s.mu.Unlock()
	_ = ln.Close() // it removes the file
}

// back brings the socket back after a time.
func (s *scripted) back(d time.Duration) {
	s.wg.Go(func() {
		select {
		case <-s.ctx.Done():
		case <-time.After(d):
			if err := s.listen(); err != nil {
				s.fail("cannot listen again: %v", err)
			}
		}
	})
}

// fail notes what is wrong, and ends the conversation.
func (s *scripted) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wrong == nil { // what follows is a consequence
		s.wrong = []string{fmt.Sprintf(format, args...)}
	}
	s.closeLocked()
}

func (s *scripted) closeLocked() {
	s.cancel()
	if s.ln != nil {
		_ = s.ln.Close()
		s.ln = nil
	}
	for _, c := range s.conns {
		_ = c.Close()
	}
}

// note tells those that wait that a request has come, or has a name.
func (s *scripted) note(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// until waits until f, called under the lock, is true.
func (s *scripted) until(ctx context.Context, f func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := f(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return s.ctx.Err()
		}
	}
}

// request waits for a request with that name.
func (s *scripted) request(name string) (a *asked, err error) {
	err = s.until(s.ctx, func() bool { a = s.named[name]; return a != nil })
	return a, err
}

// last is the address of the connection that finish makes.
func (s *scripted) last() string { return s.path + ".last" }

// empty waits until all connections are accepted that the client has made, by making one
// more. It ends the accepting.
func (s *scripted) empty() {
	from, to := &net.UnixAddr{Name: s.last(), Net: "unix"}, &net.UnixAddr{Name: s.path, Net: "unix"}
	nc, err := net.DialUnix("unix", from, to)
	if err != nil {
		return // the socket is away, or the conversation has failed
	}
	defer os.Remove(s.last())
	defer nc.Close()
	select {
	case <-s.emptied:
	case <-s.ctx.Done():
	}
}

// finish ends the server after the client has gone. It returns what was wrong.
func (s *scripted) finish() []string {
	s.empty()
	s.mu.Lock()
	s.over = true
	if s.ln != nil {
		_ = s.ln.Close()
		s.ln = nil
	}
	s.mu.Unlock()
	ended := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(patience):
		s.mu.Lock()
		s.closeLocked()
		s.mu.Unlock()
		<-ended
	}
	s.cancel()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		s.wrong = append(s.wrong, err.Error())
	}
	if s.wrong != nil {
		return s.wrong
	}
	if len(s.conns) == 0 {
		return []string{notPlayed}
	}
	for i := len(s.conns); i < len(s.of.Server.Script); i++ {
		if acts := s.of.Server.Script[i]; len(acts) == 0 || !acts[0].Maybe {
			return []string{fmt.Sprintf("the client has opened %d connections, want %d: the next one begins with %s",
				len(s.conns), i+1, text(acts))}
		}
	}
	return nil
}
