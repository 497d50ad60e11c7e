package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
	if err := ask(); err != nil {
		t.Fatal(err)
	}
	var r Redialer
	r.live.Store(c)
	replaced, err := r.Replace(t.Context(), func(old *Client) (*Client, error) {
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
		if err := ask(); !errors.Is(err, ErrRetiring) || !errors.Is(err, ErrNotSent) {
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

// TestRetireFull checks that a connection with MaxCalls calls can retire, and loses none
// of them.
func TestRetireFull(t *testing.T) {
	h := newEcho()
	_, dial, _ := serve(t, h, Limits{})
	c := newTestClient(t, dial, ClientConfig{MaxCalls: 2})
	done := make(chan error, 2)
	for range 2 {
		go func() {
			call, err := c.Do(t.Context(), time.Minute, getRequest("wait"))
			c.Release(call)
			done <- err
		}()
	}
	testenv.Eventually(t, "both calls", func() bool { return c.InFlight() == 2 })
	if err := c.Retire(t.Context()); err != nil {
		t.Errorf("it does not give way: %v", err)
	}
	c.Finish()
	close(h.release)
	for range 2 {
		if err := <-done; err != nil {
			t.Errorf("a call is lost: %v", err)
		}
	}
	<-c.Done()
}

// TestRetireLong checks that a retired connection has sent all requests when its last
// call is answered, including long requests that waited behind one another.
func TestRetireLong(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{})
	defer c.Close()
	const n = 5
	for range n {
		q := &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 1<<20)}
		if err := c.Start(q, time.Minute, &Call{over: make(chan struct{}, 1)}); err != nil {
			t.Fatal(err)
		}
		c.Flush()
	}
	retired := make(chan error, 1)
	go func() { retired <- c.Retire(t.Context()) }()
	testenv.Eventually(t, "it retires", c.Retiring)
	for sent := 0; ; sent++ {
		var q wire.Request
		if frame, err := tryReadFrame(conns[1]); err != nil {
			t.Fatal(err)
		} else if err := wire.DecodeRequest(frame, &q); err != nil {
			t.Fatal(err)
		}
		if q.Op != wire.OpPing {
			continue
		}
		if sent < n {
			t.Errorf("its last call is sent after %d requests of %d", sent, n)
		}
		if _, err := conns[1].Write(wire.AppendReply(nil, q.Op, &wire.Reply{ID: q.ID})); err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := <-retired; err != nil {
		t.Error(err)
	}
}
