package server

import (
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// small is the size that the send buffers of these tests begin with.
const small = 4 << 10

// smallTakes is what such a buffer takes of the kernel's memory at most.
const smallTakes = 3 * small

// kept returns how many bytes of memory the kernel has for the answers of a server.
func kept(s *Server) (n int64) {
	s.each(func(c *Conn) { n += int64(c.socket.InKernel()) })
	return n
}

// TestSendBuffersAreInTheBudget has many connections ask for more than they read. The kernel keeps
// as much as the budget has for it, and a small buffer for each connection. Then all is read.
func TestSendBuffersAreInTheBudget(t *testing.T) {
	const conns, each, length = 60, 3, 60_000
	budget := quota.NewBudget(64 << 20)
	s, dial, _ := serve(t, newEcho(), Limits{SendBuffer: small, Budget: budget, WriteTimeout: time.Hour})
	most := budget.Size()/quota.SocketsPart - budget.Size()/quota.SocketsPart/8 // of one tenant
	hog := budget.Open("uid 0", "")
	hog.Force(quota.ForSockets, most-1<<20) // as many more connections would
	var all []net.Conn
	for i := range conns {
		nc := dial()
		for id := range each {
			if _, err := nc.Write(getFrame(uint64(id), fmt.Sprint("big ", length))); err != nil {
				t.Fatal(err)
			}
		}
		all = append(all, nc)
		eventually(t, "a connection to have answers", s, func(st Stats) bool { return st.BytesOut > 0 && st.Open == int64(i+1) })
	}
	eventually(t, "all to wait", s, func(Stats) bool {
		waiting := 0
		s.each(func(c *Conn) {
			if c.outbox.blocked.Load() != 0 {
				waiting++
			}
		})
		return waiting >= conns-1<<20/200_000
	})
	if n, most := kept(s), int64(conns)*smallTakes+1<<20; n > most || n < 1<<19 {
		t.Errorf("the kernel has %d bytes, want at most %d", n, most)
	}
	if n := budget.Stats().Sockets; n > most {
		t.Errorf("%d bytes are charged for sockets, want at most %d", n, most)
	}
	for _, nc := range all {
		for range each {
			if p := readReply(t, nc); len(p.Value) != length {
				t.Fatalf("%s, %d bytes", p.Status, len(p.Value))
			}
		}
	}
	s.each((*Conn).Kill)
	hog.Give(quota.ForSockets, most-1<<20)
	hog.Close()
	allGiven(t, s)
}

// TestIdleSendBuffersShrink checks that a buffer that has grown is small again once the connection is
// idle, and that it can grow again.
func TestIdleSendBuffersShrink(t *testing.T) {
	s, dial, _ := serve(t, newEcho(), Limits{SendBuffer: small})
	nc := dial()
	for range 2 {
		if _, err := nc.Write(getFrame(1, "big 1000000")); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the buffer to grow", s, func(st Stats) bool { return st.Buffers.Sockets > 0 })
		readReply(t, nc)
		eventually(t, "it to shrink", s, func(st Stats) bool { s.each((*Conn).sweep); return st.Buffers.Sockets == 0 })
	}
}

// TestLeftAnswersKeepTheirPlace ends connections whose clients have not read. They are open until
// the clients have read, or have gone; the end of the server does not wait for them.
func TestLeftAnswersKeepTheirPlace(t *testing.T) {
	for name, leave := range map[string]func(t *testing.T, nc net.Conn, shutdown func()){
		"read": func(t *testing.T, nc net.Conn, _ func()) {
			if b, err := io.ReadAll(nc); len(b) < 10_000 || err != nil { // and what is wrong with the frame
				t.Errorf("%d bytes, %v", len(b), err)
			}
		},
		"gone": func(_ *testing.T, nc net.Conn, _ func()) { _ = nc.Close() },
		"over": func(t *testing.T, _ net.Conn, shutdown func()) { endsUnforced(t, shutdown) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			s, dial, shutdown := serve(t, h, Limits{SendBuffer: small, DrainTimeout: time.Hour})
			begin := func(bad int64) net.Conn {
				nc := dial()
				if _, err := nc.Write(append(getFrame(1, "big 10000"), make([]byte, wire.LengthSize)...)); err != nil {
					t.Fatal(err)
				}
				eventually(t, "a frame without a byte", s, func(st Stats) bool { return st.BadFrames == bad })
				return nc
			}
			nc := begin(1)
			for i := range 5 { // of others, which end meanwhile
				if _, err := io.ReadAll(begin(int64(i + 2))); err != nil {
					t.Fatal(err)
				}
				testenv.Eventually(t, "another connection to end", func() bool { return len(h.ended) >= i+1 })
			}
			if n := len(h.ended); n > 5 {
				t.Error("the connection has ended, and its client has not read")
			}
			leave(t, nc, shutdown)
			testenv.Eventually(t, "the connection to end", func() bool { return len(h.ended) == 6 })
		})
	}
}
