package rpc

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// serveLoop is serve with a loop.
func serveLoop(t *testing.T, h *echo, limits Limits) (s *Server, dial func() net.Conn) {
	limits.Loop = true
	s, dial, _ = serve(t, h, limits)
	return s, dial
}

// ask sends a GET of a key and returns the answer's value.
func ask(t *testing.T, nc net.Conn, key string) string {
	t.Helper()
	if _, err := nc.Write(getFrame(1, key)); err != nil {
		t.Fatal(err)
	}
	return string(readReply(t, nc).Value)
}

// inTheLoop returns how many connections the loop serves.
func (l *loop) inTheLoop() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

// TestLoopServesTheIdleAndTheLone checks that connections that are idle or alone have no
// goroutine.
func TestLoopServesTheIdleAndTheLone(t *testing.T) {
	s, dial := serveLoop(t, newEcho(), Limits{})
	s.shared.loop.changes = 1000 // none of them is busy
	ask(t, dial(), "first")
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range 50 {
		conns = append(conns, dial())
	}
	for _, nc := range conns {
		if got := ask(t, nc, "hello"); got != "hello" {
			t.Fatalf("got %q", got)
		}
	}
	for range 1000 {
		ask(t, conns[7], "alone")
	}
	if n := s.shared.loop.inTheLoop(); n != 51 {
		t.Errorf("%d connections are in the loop, want 51", n)
	}
	if n := runtime.NumGoroutine() - before; n > 0 {
		t.Errorf("50 connections have %d goroutines", n)
	}
}

// TestLoopIsLeftAndFound makes several connections busy: they leave the loop. Those that have
// been idle since come home, and no descriptor is left behind.
func TestLoopIsLeftAndFound(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	s, dial := serveLoop(t, newEcho(), Limits{})
	l := s.shared.loop
	l.changes, l.leaves = 2, 2 // the machine may be slow
	conns := []net.Conn{dial(), dial(), dial(), dial()}
	for _, nc := range conns {
		ask(t, nc, "hello")
	}
	fds := openDescriptors(t)
	for range 3 {
		var stop atomic.Bool
		var wg sync.WaitGroup
		for _, nc := range conns[1:] {
			wg.Go(func() {
				for !stop.Load() {
					ask(t, nc, "busy")
				}
			})
		}
		eventually(t, "busy connections to leave the loop", s, func(Stats) bool { return l.inTheLoop() == 1 })
		l.callHome()
		l.callHome() // some have not been idle
		stop.Store(true)
		wg.Wait()
		eventually(t, "idle connections to come home", s, func(Stats) bool { l.callHome(); return l.inTheLoop() == len(conns) })
		for _, nc := range conns {
			if got := ask(t, nc, "again"); got != "again" {
				t.Fatalf("got %q", got)
			}
		}
	}
	eventually(t, "descriptors to be closed", s, func(Stats) bool { return openDescriptors(t) <= fds })
}

func openDescriptors(t *testing.T) (n int) {
	t.Helper()
	for fd := range 1024 {
		var st syscall.Stat_t
		if syscall.Fstat(fd, &st) == nil {
			n++
		}
	}
	return n
}

// TestLoopIsNotHeldUp has connections that wait in every way, each beside another connection
// in the same loop.
func TestLoopIsNotHeldUp(t *testing.T) {
	for name, begin := range map[string]func(t *testing.T, nc net.Conn){
		"a part of a frame": func(t *testing.T, nc net.Conn) { mustWrite(t, nc, getFrame(1, "hello")[:7]) },
		"a part behind a frame": func(t *testing.T, nc net.Conn) {
			mustWrite(t, nc, slices.Concat(getFrame(1, "hello"), getFrame(2, "hello")[:3]))
		},
		"answers not read":      func(t *testing.T, nc net.Conn) { pipeline(t, nc, 32, "big 100000") },
		"one answer not read":   func(t *testing.T, nc net.Conn) { pipeline(t, nc, 1, "big 5000000") },
		"many requests waiting": func(t *testing.T, nc net.Conn) { pipeline(t, nc, 3, "wait") },
		"no room":               func(t *testing.T, nc net.Conn) { pipeline(t, nc, 2, "room") },
		"answers behind a later one": func(t *testing.T, nc net.Conn) { // in one batch
			b := getFrame(1, "go 2000000")
			for range 8 {
				b = append(b, getFrame(1, "dawdle")...)
			}
			mustWrite(t, nc, append(b, bytes.Repeat(getFrame(1, "big 60000"), 16)...))
		},
		"later answers not read": func(t *testing.T, nc net.Conn) {
			for range 8 {
				pipeline(t, nc, 1, "go 400000")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			h.most = 1
			s, dial := serveLoop(t, h, Limits{MaxInFlight: 2, WriteTimeout: time.Minute})
			waits, other := dial(), dial()
			ask(t, other, "hello")
			had := s.Stats().BytesIn
			begin(t, waits)
			eventually(t, "the requests", s, func(st Stats) bool { return st.BytesIn > had })
			for range 100 {
				_ = other.SetDeadline(testenv.Deadline())
				if got := ask(t, other, "other"); got != "other" {
					t.Fatalf("got %q", got)
				}
			}
			eventually(t, "the one that waits to leave", s, func(Stats) bool { return s.shared.loop.inTheLoop() == 1 })
			close(h.release)
			_ = waits.Close()
		})
	}
}

// TestLoopGoesOn checks that a connection that has waited in its loop is served to the end,
// in the order of its requests.
func TestLoopGoesOn(t *testing.T) {
	_, dial := serveLoop(t, newEcho(), Limits{})
	nc := dial()
	const n = 300 // of 20 KB: more than the queue and the socket take
	var b []byte
	for i := range n {
		b = append(b, getFrame(uint64(i), "big 20000")...)
	}
	mustWrite(t, nc, b)
	for i := range n {
		if p := readReply(t, nc); p.ID != uint64(i) || len(p.Value) != 20_000 {
			t.Fatalf("answer %d has id %d and %d bytes", i, p.ID, len(p.Value))
		}
	}
	frame := getFrame(1, "dripping")
	for _, b := range frame {
		mustWrite(t, nc, []byte{b})
	}
	if got := string(readReply(t, nc).Value); got != "dripping" {
		t.Errorf("got %q", got)
	}
}

// TestLoopKills ends connections of a loop in every way.
func TestLoopKills(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, s *Server, nc net.Conn){
		"by the peer":    func(_ *testing.T, _ *Server, nc net.Conn) { _ = nc.Close() },
		"by this host":   func(_ *testing.T, s *Server, _ net.Conn) { s.each((*Conn).Kill) },
		"by the handler": func(t *testing.T, _ *Server, nc net.Conn) { mustWrite(t, nc, getFrame(1, "drop")) },
		"by a bad frame": func(t *testing.T, _ *Server, nc net.Conn) { mustWrite(t, nc, []byte{255, 255, 255, 255, 0}) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			s, dial := serveLoop(t, h, Limits{})
			nc := dial()
			ask(t, nc, "hello")
			end(t, s, nc)
			<-h.ended
			eventually(t, "the connection to end", s, func(st Stats) bool { return st.Open == 0 && s.shared.loop.inTheLoop() == 0 })
		})
	}
}

// TestLoopKillsTheMoving kills connections while they leave the loop and come home.
func TestLoopKillsTheMoving(t *testing.T) {
	testenv.ReadsClock(t, 100*time.Microsecond, "connections move meanwhile; nothing is measured")
	s, dial := serveLoop(t, newEcho(), Limits{})
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		nc := dial()
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				frame := getFrame(1, "moving")
				for _, part := range [][]byte{frame[:i%len(frame)], frame[i%len(frame):]} {
					if _, err := nc.Write(part); err != nil {
						return
					}
				}
				if _, err := tryReadReply(nc); err != nil {
					return
				}
			}
		})
	}
	for range 200 {
		s.shared.loop.callHome()
		time.Sleep(100 * time.Microsecond)
	}
	s.each((*Conn).Kill)
	eventually(t, "killed connections to end", s, func(st Stats) bool { return st.Open == 0 })
	stop.Store(true)
	wg.Wait()
}

// TestLoopWithoutDescriptors checks that a connection that would have to leave its loop ends
// if there is no descriptor for that, that others go on, and that new ones are served.
func TestLoopWithoutDescriptors(t *testing.T) {
	h := newEcho()
	s, dial := serveLoop(t, h, Limits{})
	waits, other, third := dial(), dial(), dial()
	for _, nc := range []net.Conn{waits, other, third} {
		ask(t, nc, "hello")
	}
	free := exhaust(t, 0)
	pipeline(t, waits, 100, "big 100000")
	mustWrite(t, third, getFrame(1, "part")[:6])
	for range 2 {
		if err := <-h.ended; err == nil {
			t.Error("a connection that had to wait without a descriptor has ended in order")
		}
	}
	if got := ask(t, other, "other"); got != "other" {
		t.Errorf("got %q", got)
	}
	free()
	if got := ask(t, dial(), "new"); got != "new" || s.shared.open.Load() != 2 {
		t.Errorf("got %q, and %d connections, want 2", got, s.shared.open.Load())
	}
}

// TestLoopFlood checks that a connection that floods the loop does not keep another one
// waiting.
func TestLoopFlood(t *testing.T) {
	_, dial := serveLoop(t, newEcho(), Limits{})
	flood, other := dial(), dial()
	many := bytes.Repeat(getFrame(1, "x"), 1000)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if _, err := flood.Write(many); err != nil {
				t.Error(err)
				return
			}
		}
		_ = flood.(*net.UnixConn).CloseWrite()
	})
	wg.Go(func() {
		for {
			if _, err := tryReadReply(flood); err != nil {
				return
			}
		}
	})
	for range 100 {
		_ = other.SetDeadline(testenv.Deadline())
		ask(t, other, "other")
	}
	stop.Store(true)
	wg.Wait()
}

// TestLoopFrameTimeout checks that a connection with a part of a frame does not come home:
// the frame has a deadline.
func TestLoopFrameTimeout(t *testing.T) {
	h := newEcho()
	s, dial := serveLoop(t, h, Limits{FrameTimeout: 100 * time.Millisecond})
	mustWrite(t, dial(), getFrame(1, "part")[:6])
	testenv.Eventually(t, "the connection ends", func() bool { s.shared.loop.callHome(); return len(h.ended) > 0 })
	if err := <-h.ended; err != ErrSlowFrame {
		t.Errorf("ended with %v", err)
	}
}

// newcomerOf returns a connection of a server that has not begun.
func newcomerOf(t *testing.T, s *Server, h *echo) *Conn {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fds[1]) })
	f := os.NewFile(uintptr(fds[0]), "")
	nc, err := net.FileConn(f)
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	c := newConn(nc, s.shared, "", "")
	c.handler = &echoHandler{echo: h}
	s.shared.open.Add(1)
	return c
}

// TestLoopTakesTheKilled checks that a connection that was killed as it was given to the loop
// ends.
func TestLoopTakesTheKilled(t *testing.T) {
	h := newEcho()
	s, _ := serveLoop(t, h, Limits{})
	c := newcomerOf(t, s, h)
	c.socket.killed.Store(true) // its reader was told, and not the loop
	if !s.shared.loop.take(c) {
		t.Fatal("not taken")
	}
	if err := <-h.ended; err != errKilled {
		t.Errorf("ended with %v", err)
	}
}

// TestLoopTakesNoWriter checks that a connection stays where it is while a goroutine writes to
// it.
func TestLoopTakesNoWriter(t *testing.T) {
	h := newEcho()
	s, _ := serveLoop(t, h, Limits{})
	c := newcomerOf(t, s, h)
	c.outbox.writing = true
	if s.shared.loop.take(c) {
		t.Error("taken while a goroutine writes")
	}
	c.outbox.writing = false
	if !s.shared.loop.take(c) {
		t.Error("not taken after that")
	}
}

// TestBareIsClosedOnce checks that a connection does not close a descriptor that has become
// another's.
func TestBareIsClosedOnce(t *testing.T) {
	h := newEcho()
	s, _ := serveLoop(t, h, Limits{})
	c := newcomerOf(t, s, h)
	if !c.detach() {
		t.Fatal("not detached")
	}
	c.socket.letGo()
	fd := c.socket.bare.fd
	if err := syscall.Dup3(0, fd, syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	c.socket.letGo()
	if err := syscall.Fstat(fd, new(syscall.Stat_t)); err != nil {
		t.Error(err)
	}
}

// TestLoopLetsTheAttachedGo checks that a connection leaves the loop when a goroutine that
// writes to it has to wait, so that both ends of it are noticed: its peer reads nothing in
// time, or the server ends it.
func TestLoopLetsTheAttachedGo(t *testing.T) {
	for name, c := range map[string]struct {
		timeout time.Duration
		kill    bool
		want    error
	}{"slow reader": {100 * time.Millisecond, false, ErrSlowReader}, "killed": {time.Minute, true, errKilled}} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			s, dial := serveLoop(t, h, Limits{WriteTimeout: c.timeout})
			nc := dial()
			ask(t, nc, "hello")
			mustWrite(t, nc, getFrame(1, "go 5000000"))
			if c.kill {
				eventually(t, "the connection to leave the loop", s, func(Stats) bool { return s.shared.loop.inTheLoop() == 0 })
				s.each((*Conn).Kill)
			}
			if err := <-h.ended; err != c.want {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
		})
	}
}

// TestLoopComesHomeAfterAWait checks that a connection whose answer had to wait comes home
// when it has been read, with one descriptor.
func TestLoopComesHomeAfterAWait(t *testing.T) {
	s, dial := serveLoop(t, newEcho(), Limits{})
	nc := dial()
	ask(t, nc, "hello")
	fds := openDescriptors(t)
	mustWrite(t, nc, getFrame(1, "go 5000000"))
	readReply(t, nc)
	eventually(t, "the connection to come home", s, func(Stats) bool {
		s.shared.loop.callHome()
		return s.shared.loop.inTheLoop() == 1 && openDescriptors(t) <= fds
	})
}

// TestLoopLongBatch checks that a long batch leaves the loop when its turn is over.
func TestLoopLongBatch(t *testing.T) {
	testenv.Takes(t, 3*time.Second)
	const n = 80 * MaxServe
	for try := 0; ; try++ {
		h := newEcho()
		s, dial := serveLoop(t, h, Limits{})
		long, other := dial(), dial()
		ask(t, other, "hello")
		pipeline(t, long, n, "dawdle") // one read, at least 640 ms
		eventually(t, "the batch to be under way", s, func(Stats) bool { return h.served.Load() > 1 })
		ask(t, other, "other")
		served := h.served.Load()
		for range n {
			readReply(t, long)
		}
		if served <= n {
			return
		}
		if try == 5 { // before, the test itself may have been late
			t.Fatalf("%d requests were served before another connection's", served-2)
		}
	}
}

// TestLoopIsLeftByCallers checks that a connection leaves the loop if another server answers
// its requests.
func TestLoopIsLeftByCallers(t *testing.T) {
	back := newEcho()
	_, dialBack, _ := serve(t, back, Limits{})
	front := newEcho()
	front.to, front.patience = newTestClient(t, dialBack, ClientConfig{}), time.Minute
	s, dial := serveLoop(t, front, Limits{})
	nc := dial()
	for range loopLeaves - 1 {
		ask(t, nc, "ask x")
	}
	if n := s.shared.loop.inTheLoop(); n != 1 {
		t.Errorf("%d connections are in the loop, want 1", n)
	}
	for range 2 {
		if got := ask(t, nc, "ask x"); got != "x" {
			t.Errorf("got %q", got)
		}
	}
	if n := s.shared.loop.inTheLoop(); n != 0 {
		t.Errorf("%d connections are in the loop, want 0", n)
	}
}
