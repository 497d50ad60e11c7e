package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// suite is all conversations, with what is at the other ends of their sockets.
type suite struct {
	real    *real
	dir     string
	all     []*conversation
	players int
	ticks   []int // the players whose calls of one tick share a write
	ends    []end
	cancel  context.CancelFunc
	changes sync.WaitGroup
}

// end is what one player of a conversation has at the other end.
type end struct {
	of       *conversation
	player   int
	prefix   string
	path     string
	finish   func() []string // ends it, and says what was wrong
	scripted *scripted       // nil: the real sidecar, or nothing
}

// open opens the sockets of all conversations, and returns them for the manifest.
func (s *suite) open() ([]played, error) {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	var list []played
	for i, c := range s.all {
		p := played{Name: c.Name, About: c.About, Client: c.Client}
		for j := range s.players {
			e := end{of: c, player: j, path: filepath.Join(s.dir, fmt.Sprintf("%d-%d.sock", i, j))}
			if c.Server.Proxy != nil { // all of them have one sidecar
				e.prefix = fmt.Sprintf("%d-%d:", i, j)
			}
			if err := s.begin(ctx, &e); err != nil {
				return nil, fmt.Errorf("%s: %w", c.Name, err)
			}
			s.ends = append(s.ends, e)
			p.Sockets = append(p.Sockets, e.path)
			p.Calls = append(p.Calls, c.steps(e.prefix))
		}
		list = append(list, p)
	}
	return list, nil
}

// begin begins to serve one socket.
func (s *suite) begin(ctx context.Context, e *end) error {
	e.finish = func() []string { return nil }
	for _, b := range e.of.Before {
		if err := s.real.put(b, e.prefix); err != nil {
			return err
		}
	}
	for _, d := range e.of.During {
		prefix := e.prefix
		s.changes.Go(func() { s.change(ctx, d, prefix) })
	}
	switch srv := &e.of.Server; {
	case srv.None:
	case srv.Proxy != nil && e.of.Client.SharedMemory: // a descriptor does not pass a proxy
		e.path = s.real.socket
	case srv.Proxy != nil:
		p, err := newProxy(srv.Proxy, e.path, s.real.socket, e.prefix)
		if err != nil {
			return err
		}
		e.finish = p.finish
	default:
		x, err := newScripted(e.of, e.path, slices.Contains(s.ticks, e.player))
		if err != nil {
			return err
		}
		e.finish, e.scripted = x.finish, x
	}
	return nil
}

// change waits until a key has a value, and then makes a change.
func (s *suite) change(ctx context.Context, d change, prefix string) {
	key := string(bytesOf(d.When, prefix))
	for ctx.Err() == nil {
		_, err := s.real.client.Get(ctx, key, cachesidecar.GetOptions{})
		if err == nil {
			_ = s.real.put(d.Set, prefix) // the player finds that it is missing
			return
		}
		if !errors.Is(err, cachesidecar.ErrNotFound) && ctx.Err() == nil {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// defect is what was wrong in a conversation.
type defect struct {
	name   string
	player int
	what   string
}

func (d defect) String() string { return fmt.Sprintf("%s (player %d): %s", d.name, d.player+1, d.what) }

// close ends everything after the command has ended, and returns what was wrong, by
// conversation.
func (s *suite) close() (wrong []defect) {
	s.cancel()
	s.changes.Wait()
	found := make([][]string, len(s.ends))
	var wg sync.WaitGroup
	for i, e := range s.ends {
		wg.Go(func() { found[i] = e.verdict(s.real) })
	}
	wg.Wait()
	for i, e := range s.ends {
		for _, f := range found[i] {
			wrong = append(wrong, defect{e.of.Name, e.player, f})
		}
	}
	return wrong
}

// verdict ends one end and returns what was wrong.
func (e *end) verdict(r *real) []string {
	wrong := e.finish()
	if wrong != nil {
		return wrong // what the sidecar has is a consequence
	}
	for _, a := range e.of.After {
		if err := r.check(a, e.prefix); err != nil {
			wrong = append(wrong, fmt.Sprintf("after it the key %q: %v", a.Key.bytes(), err))
		}
	}
	return wrong
}
