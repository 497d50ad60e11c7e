package rpc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestClientCalls(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	dial := newPeer().listen(t)
	c := newTestClient(t, dial, ClientConfig{})
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 100 {
				key := fmt.Sprint("key", g, ".", i)
				if i%20 == 0 {
					key = fmt.Sprint("big ", 10_000*i)
				}
				call, err := c.Do(t.Context(), time.Minute, getRequest(key))
				if err != nil {
					t.Error(err)
					return
				}
				var p wire.Reply
				if err := wire.DecodeReply(wire.OpGet, call.Frame(), &p); err != nil {
					t.Error(err)
				}
				if i%20 == 0 {
					if len(p.Value) != 10_000*i {
						t.Errorf("%s has %d bytes", key, len(p.Value))
					}
				} else if string(p.Value) != key {
					t.Errorf("%s is %q", key, p.Value)
				}
				c.Release(call)
			}
		})
	}
	wg.Wait()
	if n := c.InFlight(); n != 0 {
		t.Errorf("%d in flight", n)
	}
}

// TestClientGivesUp checks that a call ends with its context or timeout. Its late answer
// does not reach another call, and its slot is freed.
func TestClientGivesUp(t *testing.T) {
	h := newPeer()
	dial := h.listen(t)
	c := newTestClient(t, dial, ClientConfig{MaxCalls: 2})
	ctx, cancel := context.WithCancel(t.Context())
	go h.onceServed(t, 1, cancel)
	if _, err := c.Do(ctx, time.Minute, getRequest("wait")); !errors.Is(err, context.Canceled) {
		t.Errorf("with a context: %v", err)
	}
	if _, err := c.Do(t.Context(), 10*time.Millisecond, getRequest("wait")); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("with a timeout: %v", err)
	}
	if _, err := c.Do(t.Context(), time.Minute, getRequest("x")); !errors.Is(err, ErrFull) {
		t.Errorf("over MaxCalls: %v", err)
	}
	close(h.release)
	testenv.Eventually(t, "the late answers", func() bool { return c.InFlight() == 0 })
	for range 10 {
		call, err := c.Do(t.Context(), time.Minute, getRequest("mine"))
		testenv.Must(t, err)
		if !bytes.Contains(call.Frame(), []byte("mine")) {
			t.Errorf("got another's answer: %q", call.Frame())
		}
		c.Release(call)
	}
}

func TestClientLosesConnection(t *testing.T) {
	near, far := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, far) }() // ends with the pipe
	c := newClient(near, ClientConfig{})
	defer c.Close()
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if call, err := c.Do(t.Context(), time.Minute, getRequest("x")); !errors.Is(err, ErrClosed) {
				t.Errorf("a call in flight: %v, %v", call, err)
			} else {
				c.Release(call)
			}
		})
	}
	testenv.Eventually(t, "all calls", func() bool { return c.InFlight() == 3 })
	far.Close()
	wg.Wait()
	<-c.Done()
	if _, err := c.Do(t.Context(), time.Minute, getRequest("x")); !errors.Is(err, ErrNotSent) {
		t.Errorf("after the end: %v", err)
	}
}

// TestClientStuckPeer checks that a peer that takes nothing keeps no caller past its
// deadline, and no more than MaxQueued bytes in the queue.
func TestClientStuckPeer(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{MaxQueued: 1 << 20, WriteTimeout: time.Minute})
	defer c.Close()
	const size = 400 << 10
	for range 2 {
		_, err := c.Do(t.Context(), 20*time.Millisecond, &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, size)})
		if !errors.Is(err, ErrNoAnswer) {
			t.Errorf("%v", err)
		}
	}
	full := 0
	for range 10 {
		if err := startSet(t, c, nil, "k", size); errors.Is(err, ErrFull) {
			full++
		} else if err != nil {
			t.Errorf("%v", err)
		}
	}
	if full < 5 {
		t.Errorf("%d of 10 calls refused", full)
	}
}

// TestClientLeavesOut checks that a long request whose caller has given up is not sent,
// and uses neither a slot nor memory.
func TestClientLeavesOut(t *testing.T) {
	conns := socketPair(t)
	b := quota.NewBudget(256 << 20)
	c := newClient(conns[0], ClientConfig{MaxCalls: 10, WriteTimeout: time.Minute, Budget: b})
	defer c.Close()
	set := func(size int) {
		q := &wire.Request{Op: wire.OpSet, Key: []byte("late"), Value: make([]byte, size)}
		if _, err := c.Do(t.Context(), time.Millisecond, q); !errors.Is(err, ErrNoAnswer) {
			t.Fatal(err)
		}
	}
	set(1 << 20) // some of it is on its way
	for range 50 {
		set(1 << 20)
	}
	set(10)
	if has := b.Stats().Total(); has > 2<<20 {
		t.Errorf("%d bytes are held", has)
	}
	testenv.Must(t, startSet(t, c, nil, "now", 1<<20))
	var keys []string
	for len(keys) == 0 || keys[len(keys)-1] != "now" {
		var q wire.Request
		if frame, err := tryReadFrame(conns[1]); err != nil {
			t.Fatal(err)
		} else if err := wire.DecodeRequest(frame, &q); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(q.Key))
	}
	if want := []string{"late", "late", "now"}; !slices.Equal(keys, want) {
		t.Errorf("sent are %v, want %v: the first, the short one and the last", keys, want)
	}
}

// TestClientAnsweredTooSoon checks a peer that answers a long request that is not sent
// yet, and never will be. The call that has the slot by then keeps it.
func TestClientAnsweredTooSoon(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{WriteTimeout: time.Minute})
	defer c.Close()
	testenv.Must(t, startSet(t, c, nil, "first", 1<<20))
	early := &Call{over: make(chan struct{}, 1)}
	q := &wire.Request{Op: wire.OpSet, Key: []byte("early"), Value: make([]byte, 1<<20)}
	testenv.Must(t, c.Start(q, 100*time.Millisecond, early))
	if _, err := conns[1].Write(wire.AppendReply(nil, q.Op, &wire.Reply{ID: q.ID})); err != nil {
		t.Fatal(err)
	}
	<-early.over
	q = getRequest("next")
	testenv.Must(t, c.Start(q, time.Minute, &Call{over: make(chan struct{}, 1)}))
	testenv.Eventually(t, "the request is late", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.requests.long.Len() == 0
	})
	if !c.abandon(q.ID) {
		t.Error("a call has lost its slot")
	}
}

func BenchmarkCall(b *testing.B) {
	dial := newPeer().listen(b)
	c := newTestClient(b, dial, ClientConfig{})
	q := getRequest("k")
	b.ReportAllocs()
	for b.Loop() {
		call, err := c.Do(context.Background(), time.Second, q)
		testenv.Must(b, err)
		c.Release(call)
	}
}
