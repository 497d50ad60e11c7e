package rpc

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// securedListener accepts with TLS, one handshake after the other.
type securedListener struct {
	net.Listener
	cfg *tls.Config
}

func (l *securedListener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := Secure(nc, func(below net.Conn) *tls.Conn { return tls.Server(below, l.cfg) })
	return s, s.Handshake()
}

// values answers a GET with a value of as many bytes as the key says: an odd number from
// the reader, an even number from a task.
type values struct{}

func (values) Batch()                              {}
func (values) Served()                             {}
func (values) Gone()                               {}
func (values) Close(error)                         {}
func (values) Oversized(*Conn, []byte, int, error) {}
func (values) Serve(c *Conn, frames [][]byte) error {
	for _, f := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(f, &q); err != nil {
			return err
		}
		id, n := q.ID, 0
		_, _ = fmt.Sscan(string(q.Key), &n)
		reply := wire.Reply{ID: id, Value: bytes.Repeat([]byte{byte(n)}, n)}
		if n%2 == 0 {
			c.Go(func() []byte { return wire.AppendReply(nil, wire.OpGet, &reply) })
			continue
		}
		if err := c.Grow(n+100, true); err != nil {
			return err
		}
		c.Out = wire.AppendReply(c.Out, wire.OpGet, &reply)
	}
	return nil
}

func serveSecured(t testing.TB) (address string, dial *tls.Config) {
	t.Helper()
	a := peertest.NewAuthority(t, "one")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(Limits{}, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) { return values{}, nil })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- s.Serve(ctx, &securedListener{ln, &tls.Config{Certificates: []tls.Certificate{a.Certificate(t, []string{"b"})}}})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String(), &tls.Config{InsecureSkipVerify: true}
}

func dialSecured(t testing.TB, address string, cfg *tls.Config) *Client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := Secure(nc, func(below net.Conn) *tls.Conn { return tls.Client(below, cfg) })
	if err := s.Handshake(); err != nil {
		t.Fatal(err)
	}
	c := newClient(s, ClientConfig{})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// TestSecured checks that answers of all lengths, also longer than a socket's buffer or a
// TLS record, come whole over TLS, however many are under way.
func TestSecured(t *testing.T) {
	testenv.Takes(t, time.Second)
	address, cfg := serveSecured(t)
	c := dialSecured(t, address, cfg)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 60 {
				size := (n*n*n*(i+1) + i) % (1 << 21)
				q := wire.Request{Op: wire.OpGet, Key: fmt.Append(nil, size), Namespace: bytes.Repeat([]byte("n"), n)}
				call, err := c.Do(context.Background(), time.Minute, &q)
				var r wire.Reply
				if err == nil {
					err = wire.DecodeReply(wire.OpGet, call.Frame(), &r)
				}
				if err != nil || !bytes.Equal(r.Value, bytes.Repeat([]byte{byte(size)}, size)) {
					t.Errorf("%d bytes: got %d, %v", size, len(r.Value), err)
				}
				c.Release(call)
			}
		})
	}
	wg.Wait()
}

// stuck returns a connection whose other side does not read by itself.
func stuck(t *testing.T) (s *socket, other *tls.Conn) {
	t.Helper()
	a := peertest.NewAuthority(t, "one")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	other = tls.Client(client, &tls.Config{InsecureSkipVerify: true})
	secured := Secure(server, func(below net.Conn) *tls.Conn {
		return tls.Server(below, &tls.Config{Certificates: []tls.Certificate{a.Certificate(t, []string{"b"})}, SessionTicketsDisabled: true})
	})
	done := make(chan error, 1)
	go func() { done <- other.Handshake() }()
	if err := errors.Join(secured.Handshake(), <-done); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = secured.Close(); _ = other.Close() })
	s = &socket{}
	s.init(secured, 100*time.Millisecond, func() error { return nil })
	return s, other
}

// TestSecuredNow checks a write that does not wait: it takes the bytes for which there is
// room, and keeps a bounded rest. The next write that may wait sends the rest in order.
func TestSecuredNow(t *testing.T) {
	s, other := stuck(t)
	b := bytes.Repeat([]byte("0123456789abcdef"), 2<<20) // 32 MiB
	n, err := s.writeNow(b)
	if err != nil || n == 0 || n == len(b) || !s.behind() {
		t.Fatalf("%d of %d are taken, behind %v: %v", n, len(b), s.behind(), err)
	}
	if rest := len(s.line.rest); rest > maxRecord+100 {
		t.Errorf("%d bytes wait", rest)
	}
	if again, err := s.writeNow(b); again != 0 || err != nil {
		t.Errorf("%d more are taken: %v", again, err)
	}
	// The system may still take some of it.
	for err = s.write(nil); err == nil && n < len(b); err = s.write(nil) {
		more, e := s.writeNow(b[n:])
		if n += more; e != nil {
			t.Fatal(e)
		}
	}
	if !isTimeout(err) {
		t.Errorf("a peer that takes nothing: %v", err)
	}
	got := make(chan error, 1)
	go func() { // ends when it has read all
		read := make([]byte, len(b))
		for at := 0; at < len(b); {
			n, err := other.Read(read[at:])
			if err != nil {
				got <- err
				return
			}
			at += n
		}
		if !bytes.Equal(read, b) {
			got <- errors.New("the bytes differ")
		}
		close(got)
	}()
	s.lineWriter().timeout = time.Minute
	if err := s.write(b[n:]); err != nil || s.behind() {
		t.Errorf("behind %v: %v", s.behind(), err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
}

func (s *socket) lineWriter() *writer { return &s.line.fd }

// BenchmarkSecured measures 16 callers on one connection.
func BenchmarkSecured(b *testing.B) {
	address, cfg := serveSecured(b)
	c := dialSecured(b, address, cfg)
	b.SetParallelism(8)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			call, err := c.Do(context.Background(), time.Minute, &wire.Request{Op: wire.OpGet, Key: []byte("101")})
			if err != nil {
				b.Error(err)
			}
			c.Release(call)
		}
	})
}
