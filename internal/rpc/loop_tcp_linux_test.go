package rpc

import (
	"fmt"
	"net"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestLoopServesTCP checks that connections over TCP are in the loop while they are idle, leave
// it for requests that wait, and end with the server, and that small answers are not held back.
func TestLoopServesTCP(t *testing.T) {
	h := newText()
	s, dial, shutdown := serveText(t, h, "tcp", Limits{Loop: true, DrainTimeout: 2 * testenv.Patience})
	l := s.shared.loop
	l.changes = 1000 // none of them is busy
	fds := openDescriptors(t)
	var conns []net.Conn
	for i := range 20 {
		nc := dial()
		conns = append(conns, nc)
		mustWrite(t, nc, fmt.Appendf(nil, "now %d\r\n", i))
		mustRead(t, nc, fmt.Sprintf("%d\r\n", i))
	}
	if n := l.inTheLoop(); n != len(conns) {
		t.Errorf("%d connections are in the loop", n)
	}
	checkNoDelay(t, s)
	var wg sync.WaitGroup
	for _, nc := range conns {
		wg.Go(func() {
			mustWrite(t, nc, []byte("wait a 10\r\nbig b 1000000\r\n"))
			mustRead(t, nc, string(answerTo("a", 10))+string(answerTo("b", 1000000)))
		})
	}
	wg.Wait()
	checkNoDelay(t, s)
	eventually(t, "idle connections to come home", s, func(Stats) bool { l.callHome(); return l.inTheLoop() == len(conns) })
	_ = conns[0].Close()
	if err := <-h.ended; err != nil {
		t.Error(err)
	}
	_ = conns[1].(*net.TCPConn).SetLinger(0) // resets
	_ = conns[1].Close()
	if err := <-h.ended; err == nil {
		t.Error("a connection that was reset ends in order")
	}
	mustWrite(t, conns[2], []byte("hold c 0\r\nnow d\r\n"))
	eventually(t, "one to wait", s, func(st Stats) bool { return st.InFlight == 1 })
	release := sync.OnceFunc(func() { close(h.release) })
	for _, nc := range conns[3:] {
		wg.Go(func() { mustReadEnd(t, nc); release(); _ = nc.Close() })
	}
	wg.Go(func() {
		mustRead(t, conns[2], "c \r\nd\r\n")
		mustReadEnd(t, conns[2])
		_ = conns[2].Close()
	})
	endsUnforced(t, shutdown)
	wg.Wait()
	if n := openDescriptors(t); n > fds {
		t.Errorf("%d descriptors are open, there were %d", n, fds)
	}
}

// checkNoDelay checks that all connections of a server send small answers at once.
func checkNoDelay(t *testing.T, s *Server) {
	t.Helper()
	s.each(func(c *Conn) {
		c.socket.bare.mu.Lock()
		defer c.socket.bare.mu.Unlock()
		check := func(fd uintptr) {
			if on, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on == 0 {
				t.Errorf("TCP_NODELAY is %d, %v", on, err)
			}
		}
		if c.socket.bare.is.Load() {
			check(uintptr(c.socket.bare.fd))
		} else if err := c.socket.raw.Control(check); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseReadTCP checks that a connection over TCP is not closed for reading, in the loop or
// out of it: its peer would not learn which of its bytes were read.
func TestCloseReadTCP(t *testing.T) {
	// A request that is not complete is waited for out of the loop.
	for first, rest := range map[string]string{"now x\r\n": "now y\r\n", "now x\r\nno": "w y\r\n"} {
		s, dial, _ := serveText(t, newText(), "tcp", Limits{Loop: true})
		s.shared.loop.changes = 1000 // the connection is not busy
		nc := dial()
		mustWrite(t, nc, []byte(first))
		mustRead(t, nc, "x\r\n")
		within := 0
		if first == "now x\r\n" {
			within = 1
		}
		eventually(t, "the loop to be left, or not", s, func(Stats) bool { return s.shared.loop.inTheLoop() == within })
		s.each(func(c *Conn) {
			if c.socket.closeRead() {
				t.Errorf("after %q: it was closed", first)
			}
		})
		mustWrite(t, nc, []byte(rest))
		mustRead(t, nc, "y\r\n")
	}
}
