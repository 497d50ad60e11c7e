package rpc

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestShutdownIsExact checks that each call which a shutdown meets was served and has its
// answer, or was not served and was not sent.
func TestShutdownIsExact(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	for range 8 {
		h := newEcho()
		s, dial, shutdown := serve(t, h, Limits{DrainTimeout: 2 * testenv.Patience})
		var answered atomic.Int64
		var wg sync.WaitGroup
		for i := range 4 {
			c := newTestClient(t, dial, ClientConfig{})
			for range 4 {
				q := wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: make([]byte, 10+i*20_000)}
				wg.Go(func() {
					for {
						call, err := c.Do(t.Context(), time.Minute, &q)
						c.Release(call)
						if err != nil {
							if !errors.Is(err, ErrNotSent) {
								t.Error(err)
							}
							return
						}
						answered.Add(1)
					}
				})
			}
		}
		// A connection that is not accepted yet would be reset, whatever was sent over it.
		eventually(t, "2,000 requests over 4 connections", s, func(st Stats) bool {
			return st.Accepted == 4 && h.served.Load() >= 2_000
		})
		endsUnforced(t, shutdown)
		wg.Wait()
		if h.served.Load() != answered.Load() {
			t.Errorf("%d requests served, %d answers arrived", h.served.Load(), answered.Load())
		}
	}
}

// TestCutInTheMiddle checks which calls count as sent if the peer reads no more while a
// write waits: those whose requests it has got whole.
func TestCutInTheMiddle(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{})
	defer c.Close()
	var calls []*outcome
	start := func(value int) {
		t.Helper()
		q := wire.Request{Op: wire.OpSet, Key: []byte(strings.Repeat("k", 8)), Value: make([]byte, value)}
		calls = append(calls, &outcome{told: make(chan error, 1)})
		if err := c.Start(&q, time.Minute, calls[len(calls)-1]); err != nil {
			t.Fatal(err)
		}
	}
	start(10)
	c.Flush()
	start(4 << 20) // more than the socket takes
	c.Flush()
	start(20)
	start(1 << 20)
	c.Flush()
	if err := conns[1].(*net.UnixConn).CloseRead(); err != nil {
		t.Fatal(err)
	}
	var q wire.Request
	if frame, err := tryReadFrame(conns[1]); err != nil {
		t.Fatal(err)
	} else if err := wire.DecodeRequest(frame, &q); err != nil {
		t.Fatal(err)
	}
	if _, err := conns[1].Write(wire.AppendReply(nil, q.Op, &wire.Reply{ID: q.ID})); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, conns[1]); err != nil { // now the write that waits fails
		t.Fatal(err)
	}
	if err := <-calls[0].told; err != nil {
		t.Errorf("the request that has come: %v", err)
	}
	testenv.Eventually(t, "it retires", c.Retiring)
	if err := c.Start(&q, time.Minute, nil); !errors.Is(err, ErrRetiring) {
		t.Errorf("a call after the cut: %v", err)
	}
	conns[1].Close()
	for i, call := range calls[1:] {
		if err := <-call.told; !errors.Is(err, ErrNotSent) {
			t.Errorf("call %d of those that have not come whole: %v", i+2, err)
		}
	}
}

type outcome struct{ told chan error }

func (o *outcome) Answered(_ *Answers, _ []byte, err error) { o.told <- err }

// TestWhoeverIsToldGoesElsewhere checks that a caller that hears of the end of its
// connection finds that connection no longer alive.
func TestWhoeverIsToldGoesElsewhere(t *testing.T) {
	conns := socketPair(t)
	c := newClient(conns[0], ClientConfig{})
	defer c.Close()
	var r Redialer
	r.live.Store(c)
	found := make(chan *Client, 1)
	q := wire.Request{Op: wire.OpGet, Key: []byte("k")}
	if err := c.Start(&q, time.Minute, finder{&r, found}); err != nil {
		t.Fatal(err)
	}
	c.Flush()
	conns[1].Close()
	if <-found != nil {
		t.Error("the connection counts as alive when its callers are told that it has ended")
	}
}

// finder is a Caller that looks for a connection when it is told.
type finder struct {
	r     *Redialer
	found chan *Client
}

func (f finder) Answered(*Answers, []byte, error) { f.found <- f.r.Live() }
