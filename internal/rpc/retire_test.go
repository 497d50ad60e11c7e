package rpc

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestRetireFull checks that a connection with MaxCalls calls can retire, and loses none
// of them.
func TestRetireFull(t *testing.T) {
	h := newPeer()
	dial := h.listen(t)
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
		testenv.Must(t, c.Start(q, time.Minute, &Call{over: make(chan struct{}, 1)}))
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
