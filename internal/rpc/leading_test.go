package rpc

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

var direct = flag.Bool("rpc.direct", false, "calls that are alone read their answers themselves, in all tests")

// newClient is NewClient, with the flag.
func newClient(nc net.Conn, cfg ClientConfig) *Client {
	cfg.Direct = cfg.Direct || *direct
	return NewClient(nc, cfg)
}

// TestDirectly runs all tests of clients with calls that read for themselves.
func TestDirectly(t *testing.T) {
	if *direct {
		t.Skip("this is that run")
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, "-rpc.direct", "-test.run", "^Test(Client|Direct|Retire|Leave|Await|Cut|Close|Budget|Large)")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func directClient(t *testing.T, h *echo) *Client {
	_, dial, _ := serve(t, h, Limits{})
	return newTestClient(t, dial, ClientConfig{Direct: true})
}

func must(t *testing.T, c *Client, key string) {
	t.Helper()
	call, err := c.Do(t.Context(), time.Minute, getRequest(key))
	if err != nil {
		t.Fatal(err)
	}
	var p wire.Reply
	if err := wire.DecodeReply(wire.OpGet, call.Frame(), &p); err != nil || string(p.Value) != key {
		t.Fatalf("%s: %q, %v", key, p.Value, err)
	}
	c.Release(call)
}

func (c *Client) ledCalls() uint64 {
	c.outbox.mu.Lock()
	defer c.outbox.mu.Unlock()
	return c.lead.calls
}

// A call that is alone reads its answer itself, also after the connection has been idle.
func TestDirectAlone(t *testing.T) {
	c := directClient(t, newEcho())
	for range 3 {
		before := c.ledCalls()
		for i := range 100 {
			must(t, c, fmt.Sprint("key", i))
		}
		if n := c.ledCalls() - before; n < 90 {
			t.Errorf("%d of 100 calls have read for themselves", n)
		}
		time.Sleep(3 * idleAfter)
	}
}

// The end of a connection without a read under way is noticed soon, and so is an answer that may come
// at any time.
func TestDirectIdle(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{Direct: true})
	defer c.Close()
	told := make(chan struct{})
	if err := c.Await(&wire.Request{Op: wire.OpLeaving}, func([]byte) { close(told) }); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the pair
		for id := uint64(1); ; id++ {
			var head [wire.LengthSize]byte
			if _, err := io.ReadFull(conns[1], head[:]); err != nil {
				return
			}
			frame := make([]byte, wire.FrameLength(head[:]))
			if _, err := io.ReadFull(conns[1], frame); err != nil {
				return
			}
			if id, _ := wire.PeekID(frame); id != 0 {
				_, _ = conns[1].Write(wire.AppendReply(nil, wire.OpPing, &wire.Reply{ID: id}))
			}
		}
	}()
	for range 10 {
		call, err := c.Do(t.Context(), time.Minute, &wire.Request{Op: wire.OpPing})
		if err != nil {
			t.Fatal(err)
		}
		c.Release(call)
	}
	if _, err := conns[1].Write(wire.AppendReply(nil, wire.OpLeaving, &wire.Reply{})); err != nil {
		t.Fatal(err)
	}
	<-told
	conns[1].Close()
	<-c.Done()
}

// A caller that reads gives up in time, and the next call gets its own answer.
func TestDirectGivesUp(t *testing.T) {
	h := newEcho()
	c := directClient(t, h)
	must(t, c, "first")
	for range 3 {
		if _, err := c.Do(t.Context(), 20*time.Millisecond, getRequest("wait")); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("with a timeout: %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(10*time.Millisecond, func() { cancel(io.ErrNoProgress) })
		if _, err := c.Do(ctx, time.Minute, getRequest("wait")); !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("with a context: %v", err)
		}
	}
	close(h.release)
	for range 10 {
		must(t, c, "mine")
	}
}

// Close and a peer that drops the connection end a call that reads.
func TestDirectEnds(t *testing.T) {
	for name, end := range map[string]func(c *Client){
		"closed":  func(c *Client) { time.AfterFunc(20*time.Millisecond, func() { c.Close() }) },
		"dropped": nil,
	} {
		h := newEcho()
		c := directClient(t, h)
		must(t, c, "first")
		key := "drop"
		if end != nil {
			key = "wait"
			end(c)
		}
		if _, err := c.Do(t.Context(), time.Minute, getRequest(key)); !errors.Is(err, ErrClosed) {
			t.Errorf("%s: %v", name, err)
		}
		<-c.Done()
		close(h.release)
		if _, err := c.Do(t.Context(), time.Minute, getRequest("x")); !errors.Is(err, ErrNotSent) {
			t.Errorf("%s, and then: %v", name, err)
		}
	}
}

// Callers that come and go, alone and together, cancelled at random, all get their own answers.
func TestDirectTogether(t *testing.T) {
	c := directClient(t, newEcho())
	var wg sync.WaitGroup
	for g := range 16 {
		rnd := rand.New(rand.NewPCG(1, uint64(g)))
		wg.Go(func() {
			for i := range 2000 {
				key := fmt.Sprint("key", g, ".", i)
				ctx, cancel := t.Context(), context.CancelFunc(func() {})
				if rnd.IntN(4) == 0 {
					ctx, cancel = context.WithTimeout(ctx, time.Duration(rnd.IntN(100))*time.Microsecond)
				}
				call, err := c.Do(ctx, time.Minute, getRequest(key))
				cancel()
				var p wire.Reply
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					continue
				case err != nil:
					t.Errorf("%s: %v", key, err)
					return
				}
				if err := wire.DecodeReply(wire.OpGet, call.Frame(), &p); err != nil || string(p.Value) != key {
					t.Errorf("%s: %q, %v", key, p.Value, err)
				}
				c.Release(call)
				if rnd.IntN(50) == 0 {
					time.Sleep(time.Duration(rnd.IntN(3)) * time.Millisecond)
				}
			}
		})
	}
	wg.Wait()
	must(t, c, "last")
}
