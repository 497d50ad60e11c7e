package server

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

	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/testing/peertest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
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
	s := transport.Secure(nc, func(below net.Conn) *tls.Conn { return tls.Server(below, l.cfg) })
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
	testenv.Must(t, err)
	s := New(Limits{}, slog.New(slog.DiscardHandler), func(net.Conn) (Handler, error) { return values{}, nil })
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

func dialSecured(t testing.TB, address string, cfg *tls.Config) *rpc.Client {
	t.Helper()
	nc, err := net.Dial("tcp", address)
	testenv.Must(t, err)
	s := transport.Secure(nc, func(below net.Conn) *tls.Conn { return tls.Client(below, cfg) })
	testenv.Must(t, s.Handshake())
	c := rpc.NewClient(s, rpc.ClientConfig{})
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

// onceAwaited is a context that ends once it is waited for.
type onceAwaited struct {
	context.Context
	end func()
}

func (o onceAwaited) Done() <-chan struct{} {
	o.end()
	return o.Context.Done()
}

// TestRetire checks that a retired connection answers the calls it has, refuses new ones
// with ErrNotSent, and closes when all calls are answered.
func TestRetire(t *testing.T) {
	address, cfg := serveSecured(t)
	c := dialSecured(t, address, cfg)
	ask := func() error {
		call, err := c.Do(t.Context(), time.Minute, &wire.Request{Op: wire.OpGet, Key: []byte("100000")})
		c.Release(call)
		return err
	}
	testenv.Must(t, ask())
	r := rpc.Redialer{Dial: func(context.Context) (*rpc.Client, error) { return c, nil }}
	if _, err := r.Get(t.Context()); err != nil {
		t.Fatal(err)
	}
	replaced, err := r.Replace(t.Context(), func(old *rpc.Client) (*rpc.Client, error) {
		if old != c || r.Live() != nil || r.Idle() {
			t.Error("the old connection is not hidden")
		}
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := r.Get(onceAwaited{ctx, cancel}); !errors.Is(err, context.Canceled) {
			t.Errorf("a call does not wait for the new one: %v", err)
		}
		if err := old.Retire(t.Context()); err != nil {
			t.Error(err)
		}
		if err := ask(); !errors.Is(err, rpc.ErrRetiring) || !errors.Is(err, rpc.ErrNotSent) {
			t.Errorf("after it was retired: %v", err)
		}
		if old.Err() != nil {
			t.Errorf("it ends before Finish: %v", old.Err())
		}
		old.Finish()
		return dialSecured(t, address, cfg), nil
	})
	if err != nil || !replaced {
		t.Fatal(replaced, err)
	}
	<-c.Done()
	if now := r.Live(); now == nil || now == c {
		t.Error("the new one is not in its place")
	}
	r.Close()
}
