package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// exhaust opens all descriptors of this process but n. free closes them.
func exhaust(t *testing.T, n int) (free func()) {
	t.Helper()
	var was syscall.Rlimit
	testenv.Must(t, syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was))
	few := was
	few.Cur = min(few.Cur, 256)
	testenv.Must(t, syscall.Setrlimit(syscall.RLIMIT_NOFILE, &few))
	var list []*os.File
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		list = append(list, f)
	}
	for _, f := range list[len(list)-n:] {
		_ = f.Close()
	}
	list = list[:len(list)-n]
	free = func() {
		for _, f := range list {
			_ = f.Close()
		}
		list = nil
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was)
	}
	t.Cleanup(free)
	return free
}

// steal takes the last descriptor, as another goroutine may.
func steal(t *testing.T) {
	if f, err := os.Open(os.DevNull); err == nil {
		t.Cleanup(func() { _ = f.Close() })
	}
}

// contended is a listener with a rival goroutine, which takes a free descriptor before an
// Accept or after the end of a connection, if the test says so.
type contended struct {
	net.Listener
	t      *testing.T
	before atomic.Pointer[func()] // called before the next Accept
	after  atomic.Pointer[func()] // called after the next Close of a connection
}

type contendedConn struct {
	*net.UnixConn
	ln *contended
}

func (c *contended) Accept() (net.Conn, error) {
	if f := c.before.Swap(nil); f != nil {
		(*f)()
	}
	nc, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &contendedConn{nc.(*net.UnixConn), c}, nil
}

func (c *contendedConn) Close() error {
	err := c.UnixConn.Close()
	if f := c.ln.after.Swap(nil); f != nil {
		(*f)()
	}
	return err
}

// scarcity is a server on a socket, and clients that wait for it.
type scarcity struct {
	*testing.T
	ln      *contended
	server  *Server
	clients []net.Conn
	served  atomic.Int64
}

func newScarcity(t *testing.T, clients int) *scarcity {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	testenv.Must(t, err)
	s := &scarcity{T: t, ln: &contended{Listener: ln, t: t}}
	s.server = New(Limits{}, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) {
		s.served.Add(1)
		return nil, errors.New("it has had a descriptor")
	})
	for range clients {
		c, err := net.Dial("unix", ln.Addr().String()) // it waits to be accepted
		testenv.Must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		s.clients = append(s.clients, c)
	}
	return s
}

// serve starts the server, which ends with the test.
func (s *scarcity) serve(ln net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.server.Serve(ctx, ln) }()
	s.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.Error(err)
		}
	})
}

// told waits until client i knows that it is not served.
func (s *scarcity) told(i int) {
	s.Helper()
	_ = s.clients[i].SetReadDeadline(testenv.Deadline())
	if _, err := s.clients[i].Read(make([]byte, 1)); err != io.EOF {
		s.Fatalf("client %d: %v", i, err)
	}
}

func (s *scarcity) counts(served, rejected int64) {
	s.Helper()
	testenv.Succeeds(s, fmt.Sprintf("%d have a descriptor and %d are rejected", served, rejected), func() error {
		if is, not := s.served.Load(), s.server.Stats().Rejected; is != served || not != rejected {
			return fmt.Errorf("%d and %d", is, not)
		}
		return nil
	})
}

// TestNoDescriptors checks that each new client is told at once if there are no
// descriptors. No other goroutine gets the spare descriptor, however fast it is.
func TestNoDescriptors(t *testing.T) {
	s := newScarcity(t, 3)
	ln := s.server.Sparing(s.ln)
	free := exhaust(t, 0)
	faster := func() {
		if s.server.Stats().Rejected == 0 { // later the spare one is free: see below
			steal(t)
		}
	}
	s.ln.after.Store(&faster)
	s.serve(ln)
	s.told(0)
	s.told(1)
	s.told(2)
	s.counts(0, 3)
	free()
}

// TestSpareDescriptorIsReplaced checks that a spare descriptor that another goroutine has
// taken is replaced once there is one, before the next shortage.
func TestSpareDescriptorIsReplaced(t *testing.T) {
	s := newScarcity(t, 2)
	ln := s.server.Sparing(s.ln)
	free := exhaust(t, 0)
	again := func() { steal(t) }
	// The second Accept takes the place of the spare descriptor.
	first := func() { s.ln.before.Store(&again) }
	s.ln.before.Store(&first)
	s.serve(ln)
	testenv.Eventually(t, "the descriptor is taken", func() bool { return s.ln.before.Load() == nil })
	free()
	s.told(0)
	s.told(1)
	s.counts(2, 2) // handlers refuse them
	exhaust(t, 1)
	c, err := net.Dial("unix", s.ln.Addr().String())
	testenv.Must(t, err)
	defer c.Close()
	s.clients = append(s.clients, c)
	s.told(2)
	s.counts(2, 3)
}
