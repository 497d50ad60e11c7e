package server

import (
	"context"
	"log/slog"
	"net"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestEndWithLaterBytes checks that a connection ends if the end of its stream has come together with
// the last request, while the reader served; by the client, and by the server that shuts down. The
// client reads nothing meanwhile: that would wake the poller too.
func TestEndWithLaterBytes(t *testing.T) {
	for name, end := range map[string]func(*Server, *net.UnixConn){
		"client": func(_ *Server, nc *net.UnixConn) { _ = nc.CloseWrite() },
		"server": func(s *Server, _ *net.UnixConn) { s.each((*Conn).shutdown) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newEcho()
			s, dial, _ := serve(t, h, Limits{})
			var all []net.Conn
			for range 20 { // of each the end may have come by itself
				nc := dial()
				mustWrite(t, nc, getFrame(1, "x"))
				readReply(t, nc)
				mustWrite(t, nc, getFrame(2, "hold"))
				all = append(all, nc)
			}
			eventually(t, "the readers to serve", s, func(Stats) bool { return h.served.Load() == 40 })
			for _, nc := range all {
				mustWrite(t, nc, getFrame(3, "x"))
			}
			for _, nc := range all {
				end(s, nc.(*net.UnixConn))
			}
			close(h.release)
			eventually(t, "the end", s, func(st Stats) bool {
				if name == "client" {
					s.each((*Conn).sweep)
				}
				return st.Open == 0
			})
			for _, nc := range all {
				readReply(t, nc)
				readReply(t, nc)
			}
		})
	}
}

// TestEnded checks that a connection has ended for the requests that wait once its client has
// closed it, and not while the client only sends nothing more.
func TestEnded(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			h := newEcho()
			address := "127.0.0.1:0"
			if network == "unix" {
				address = t.TempDir() + "/s"
			}
			ln, err := net.Listen(network, address)
			testenv.Must(t, err)
			s := New(Limits{}, slog.New(slog.DiscardHandler), h.handler)
			ctx, cancel := context.WithCancel(context.Background())
			served := make(chan error, 1)
			go func() { served <- s.Serve(ctx, ln) }() // ends with cancel
			dial := func() (net.Conn, *Conn) {
				nc, err := net.Dial(network, ln.Addr().String())
				testenv.Must(t, err)
				t.Cleanup(func() { nc.Close() })
				mustWrite(t, nc, getFrame(1, "go 10"))
				readReply(t, nc)
				mustWrite(t, nc, getFrame(2, "wait"))
				return nc, <-h.last
			}
			half, open := dial()
			closed, gone := dial()
			eventually(t, "both to wait", s, func(st Stats) bool { return st.InFlight == 2 })
			if open.End().Ended() || gone.End().Ended() {
				t.Error("one has ended before it was closed")
			}
			_ = half.(interface{ CloseWrite() error }).CloseWrite()
			if tcp, ok := closed.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // resets
			}
			_ = closed.Close()
			eventually(t, "the end of the closed one", s, func(Stats) bool { return gone.End().Ended() })
			if open.End().Ended() {
				t.Error("one has ended though its client waits for an answer")
			}
			close(h.release)
			if string(readReply(t, half).Value) != "waited" {
				t.Error("there was no answer")
			}
			eventually(t, "the end of both", s, func(st Stats) bool { return st.Open == 0 })
			if !open.End().Ended() || !gone.End().Ended() {
				t.Error("one has not ended after the server has closed it")
			}
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestWaited checks that a reader knows whether it has waited since it has read a batch.
func TestWaited(t *testing.T) {
	h := newEcho()
	s, dial, _ := serve(t, h, Limits{MaxInFlight: 1})
	nc := dial()
	mustWrite(t, nc, append(getFrame(1, "wait"), getFrame(2, "waited")...))
	if r := readReply(t, nc); r.ID != 2 || string(r.Value) != "false" {
		t.Errorf("%d %q", r.ID, r.Value)
	}
	mustWrite(t, nc, append(getFrame(3, "wait"), getFrame(4, "waited")...))
	eventually(t, "the second batch", s, func(Stats) bool { return h.served.Load() == 3 })
	close(h.release)
	for range 3 {
		if r := readReply(t, nc); r.ID == 4 && string(r.Value) != "true" {
			t.Errorf("%d %q", r.ID, r.Value)
		}
	}
	mustWrite(t, nc, getFrame(5, "waited"))
	if r := readReply(t, nc); string(r.Value) != "false" {
		t.Errorf("%d %q in the next batch", r.ID, r.Value)
	}
}
