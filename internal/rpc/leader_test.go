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

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
	if !testenv.Long() {
		t.Skip("LONG_TESTS=1 runs it, once")
	}
	program, err := os.Executable()
	testenv.Must(t, err)
	cmd := exec.CommandContext(t.Context(), program, "-rpc.direct", "-test.run", "^Test(Client|Direct|Retire|Leave|Await|Cut|Close|Budget|Large)")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func directClient(t *testing.T, h *peer) *Client {
	dial := h.listen(t)
	return newTestClient(t, dial, ClientConfig{Direct: true})
}

func must(t *testing.T, c *Client, key string) {
	t.Helper()
	call, err := c.Do(t.Context(), time.Minute, getRequest(key))
	testenv.Must(t, err)
	var p wire.Reply
	if err := wire.DecodeReply(wire.OpGet, call.Frame(), &p); err != nil || string(p.Value) != key {
		t.Fatalf("%s: %q, %v", key, p.Value, err)
	}
	c.Release(call)
}

func (c *Client) ledCalls() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lead.calls
}

// A call that is alone reads its answer itself, also after the connection has been idle.
func TestDirectAlone(t *testing.T) {
	c := directClient(t, newPeer())
	for range 3 {
		var n uint64
		for try := 0; n < 90 && try < 50; try++ { // a slow machine makes the connection idle between calls
			before := c.ledCalls()
			for i := range 100 {
				must(t, c, fmt.Sprint("key", i))
			}
			n = c.ledCalls() - before
		}
		if n < 90 {
			t.Errorf("%d of 100 calls have read for themselves", n)
		}
		testenv.Eventually(t, "the connection is idle", func() bool {
			c.mu.Lock()
			defer c.mu.Unlock()
			return c.lead.by == byReader
		})
	}
}

// The end of a connection without a read under way is noticed soon, and so is an answer that may come
// at any time.
func TestDirectIdle(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{Direct: true})
	defer c.Close()
	told := make(chan struct{})
	testenv.Must(t, c.Await(&wire.Request{Op: wire.OpLeaving}, func([]byte) { close(told) }))
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
		testenv.Must(t, err)
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
	h := newPeer()
	c := directClient(t, h)
	must(t, c, "first")
	for range 3 {
		if _, err := c.Do(t.Context(), 20*time.Millisecond, getRequest("wait")); !errors.Is(err, ErrNoAnswer) {
			t.Errorf("with a timeout: %v", err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		go h.onceServed(t, h.served.Load()+1, func() { cancel(io.ErrNoProgress) })
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
	for _, name := range []string{"closed", "dropped"} {
		h := newPeer()
		c := directClient(t, h)
		must(t, c, "first")
		key := "drop"
		if name == "closed" {
			key = "wait"
			go h.onceServed(t, 2, func() { c.Close() })
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
	testenv.ReadsClock(t, 100*time.Microsecond, "calls end at random moments; nothing is measured")
	c := directClient(t, newPeer())
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

// few is a connection with a few calls, whose peer is the test.
type few struct {
	t    *testing.T
	c    *Client
	peer net.Conn
	ids  <-chan uint64
}

func newFew(t *testing.T) *few {
	conns := socketPair(t)
	f := &few{t, newClient(conns[0], ClientConfig{Direct: true}), conns[1], requestIDs(conns[1])}
	t.Cleanup(func() { f.c.Close() })
	for !f.neverIdle() {
		call := f.begin(time.Minute) // the reader rests behind it, for a moment
		f.answer(call.id)
		f.want(call, nil)
	}
	return f
}

// neverIdle keeps the reader resting, however slow the test is, if it rests.
func (f *few) neverIdle() bool {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	l := &c.lead
	if l.by != byNobody || !l.armed || !l.timer.Stop() {
		return false
	}
	c.background.Done() // armed stays set: no timer is set again
	return true
}

type fewCall struct {
	id   uint64
	done chan error
}

// begin makes a call, whose caller is then on its way to wait.
func (f *few) begin(timeout time.Duration) *fewCall {
	call := &fewCall{done: make(chan error, 1)}
	go func() { // ends with its answer
		got, err := f.c.Do(context.Background(), timeout, &wire.Request{Op: wire.OpPing})
		f.c.Release(got)
		call.done <- err
	}()
	call.id = <-f.ids
	return call
}

// answer answers calls in one write.
func (f *few) answer(ids ...uint64) {
	var b []byte
	for _, id := range ids {
		b = wire.AppendReply(b, wire.OpPing, &wire.Reply{ID: id})
	}
	if _, err := f.peer.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

func (f *few) want(call *fewCall, want error) {
	f.t.Helper()
	select {
	case err := <-call.done:
		if !errors.Is(err, want) {
			f.t.Errorf("%v, not %v", err, want)
		}
	case <-testenv.Expired():
		f.t.Fatal("a call does not end")
	}
}

// reads returns who reads, and the id of the call whose caller does.
func (f *few) reads() (by readBy, id uint64) {
	c := f.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if call := c.lead.call.Load(); call != nil {
		for _, s := range c.calls.slots {
			if s.caller == call {
				id = s.id
			}
		}
	}
	return c.lead.by, id
}

func (f *few) wantReads(by readBy, call *fewCall) {
	f.t.Helper()
	var id uint64
	if call != nil {
		id = call.id
	}
	if is, of := f.reads(); is != by || of != id {
		f.t.Errorf("%d reads, call %x; not %d, %x", is, of, by, id)
	}
}

// A caller whose answer has come hands the reading over to the caller of the last call. Among many calls the reader goes on.
func TestDirectHandsOver(t *testing.T) {
	f := newFew(t)
	a := f.begin(time.Minute)
	b := f.begin(time.Minute)
	d := f.begin(time.Minute)
	f.wantReads(byCaller, a)
	f.answer(a.id)
	f.want(a, nil)
	f.wantReads(byCaller, d)
	f.answer(d.id, b.id)
	f.want(b, nil)
	f.want(d, nil)
	var many []*fewCall
	for range fewOthers + 2 {
		call := f.begin(time.Minute)
		many = append(many, call)
	}
	f.wantReads(byCaller, many[0])
	f.answer(many[0].id)
	f.want(many[0], nil)
	f.wantReads(byReader, nil)
	for _, call := range many[1:] {
		f.answer(call.id)
		f.want(call, nil)
	}
}

// A caller that has been handed the reading hears of its call's expiry, and of the end of the
// connection.
func TestDirectHandedOverEnds(t *testing.T) {
	f := newFew(t)
	a := f.begin(time.Minute)
	b := f.begin(time.Minute)
	f.answer(a.id)
	f.want(a, nil)
	d := f.begin(50 * time.Millisecond)
	f.answer(b.id)
	f.want(b, nil)
	f.want(d, ErrNoAnswer)
	f.answer(d.id)
	a = f.begin(time.Minute)
	b = f.begin(time.Minute)
	f.answer(a.id)
	f.want(a, nil)
	f.c.Close()
	f.want(b, ErrClosed)
}

// A caller that gives up just when it is handed the reading hands it on.
func TestDirectHandsOn(t *testing.T) {
	f := newFew(t)
	ended, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrNoProgress)
	for range 40 { // the one who waits takes either way
		a := f.begin(time.Minute)
		call, q := &Call{over: make(chan struct{}, rooms)}, &wire.Request{Op: wire.OpPing}
		if leads, err := f.c.send(q, 2*time.Minute, call); leads || err != nil {
			t.Fatal(leads, err)
		}
		<-f.ids
		b := f.begin(time.Minute)
		f.answer(a.id)
		f.want(a, nil)
		f.wantReads(byCaller, &fewCall{id: q.ID})
		if err := f.c.await(ended, call, q.ID); !errors.Is(err, io.ErrNoProgress) {
			t.Error(err)
		}
		f.wantReads(byCaller, b)
		f.answer(q.ID, b.id)
		f.want(b, nil)
		testenv.Eventually(t, "all answers are delivered", func() bool { return f.c.InFlight() == 0 })
		testenv.Eventually(t, "no caller reads", func() bool { by, _ := f.reads(); return by == byNobody })
	}
}

// The reading is handed to Retire too.
func TestDirectHandsRetire(t *testing.T) {
	f := newFew(t)
	a := f.begin(time.Minute)
	retired := make(chan error, 1)
	go func() { retired <- f.c.Retire(t.Context()) }() // ends with its answer
	last := <-f.ids
	f.answer(a.id)
	f.want(a, nil)
	f.wantReads(byCaller, &fewCall{id: last})
	f.answer(last)
	if err := <-retired; err != nil {
		t.Error(err)
	}
}
