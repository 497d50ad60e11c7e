package server

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// crowd is a listener at which many connections arrive, one after another.
type crowd struct {
	net.Listener
	next chan net.Conn
}

func (c crowd) Accept() (net.Conn, error) {
	nc, ok := <-c.next
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}

func (c crowd) Close() error { close(c.next); return nil }

// closes counts the connections that have ended.
type closes struct {
	Handler
	ended *atomic.Int64
}

func (c closes) Gone()       {}
func (c closes) Close(error) { c.ended.Add(1) }

// eased is a server at which many connections come and go, in virtual time.
type eased struct {
	s      *Server
	ln     crowd
	theirs []net.Conn
	ended  atomic.Int64
	cancel func()
	done   chan error
}

func newEased(t *testing.T, l Limits) *eased {
	e := &eased{ln: crowd{next: make(chan net.Conn, 1<<14)}, done: make(chan error, 1)}
	e.s = New(l, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) { return closes{nil, &e.ended}, nil })
	ctx, cancel := context.WithCancel(t.Context())
	e.cancel = cancel
	go func() { e.done <- e.s.Serve(ctx, e.ln) }() // ends with ctx
	return e
}

func (e *eased) come(n int) {
	for range n {
		here, there := net.Pipe()
		e.theirs = append(e.theirs, there)
		e.ln.next <- here
	}
}

func (e *eased) leave() {
	for _, nc := range e.theirs {
		_ = nc.Close()
	}
	e.theirs = nil
}

// took returns how long it takes until over returns true, a minute at most.
func took(over func() bool) time.Duration {
	began := time.Now()
	for !over() && time.Since(began) < time.Minute {
		time.Sleep(time.Millisecond / 10)
		synctest.Wait()
	}
	return time.Since(began)
}

// TestEase checks that many connections at once begin at a rate, and end at a rate, and
// that a few do not wait.
func TestEase(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		const few, many, soon = departureBurst - 1, 4096, 2 * time.Millisecond
		e := newEased(t, Limits{})
		near := func(what string, is time.Duration, rate float64) {
			t.Helper()
			want := time.Duration(many / rate * float64(time.Second))
			t.Logf("%d have %s after %v", many, what, is)
			if is < want*9/10 || is > want*11/10 {
				t.Errorf("%d have %s after %v, want about %v", many, what, is, want)
			}
		}
		e.come(few)
		if d := took(func() bool { return e.s.Stats().Open == few }); d > soon {
			t.Errorf("a few have come after %v", d)
		}
		e.leave()
		if d := took(func() bool { return e.ended.Load() == few }); d > soon {
			t.Errorf("a few have gone after %v", d)
		}
		time.Sleep(time.Second)
		e.come(many) // as many as the system's queue takes
		d := took(func() bool { return e.s.Stats().Open == many })
		if near("come", d, arrivalRate); d > 200*time.Millisecond {
			t.Errorf("who comes after them is served after %v, and has given up by then", d)
		}
		e.leave()
		near("gone", took(func() bool { return e.ended.Load() == few+many }), PerProcessor(departureRate))
		e.cancel()
		<-e.done
	})
}

// TestEaseEnds checks that a server that ends waits for no connection's turn, whether the
// connections stay or leave.
func TestEaseEnds(t *testing.T) {
	for _, leaving := range []bool{false, true} {
		bubble.Test(t, func(t *testing.T) {
			e := newEased(t, Limits{DrainTimeout: 50 * time.Millisecond})
			e.come(4000)
			time.Sleep(2 * time.Second)
			if leaving {
				e.leave()
			}
			synctest.Wait()
			e.cancel()
			if d := took(func() bool { return len(e.done) == 1 }); d > 100*time.Millisecond {
				t.Errorf("they leave: %v; it ends after %v, and has 50 ms", leaving, d)
			}
			e.leave()
		})
	}
}

// TestEaseOfNewcomers checks that connections that begin one after another do not wait for the ends
// of others.
func TestEaseOfNewcomers(t *testing.T) {
	h := newEcho()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	testenv.Must(t, err)
	s := New(Limits{NewRate: 500}, slog.New(slog.DiscardHandler), func(nc net.Conn) (Handler, error) {
		e, err := h.handler(nc)
		return tenantEcho{e}, err
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	defer func() { cancel(); <-done }()
	// As if so many had just ended.
	for range int(300 * PerProcessor(departureRate)) { // as many as end in five minutes
		s.shared.departures.limit.Reserve()
	}
	dial := func() net.Conn {
		nc, err := net.Dial("unix", path)
		testenv.Must(t, err)
		t.Cleanup(func() { _ = nc.Close() })
		return nc
	}
	for i := range acceptBurst + 22 {
		if nc := dial(); i >= acceptBurst+10 {
			_ = nc.Close()
		}
	}
	nc := dial()
	_ = nc.SetDeadline(testenv.Deadline())
	if _, err := nc.Write(getFrame(1, "x")); err != nil {
		t.Fatal(err)
	}
	readReply(t, nc)
}
