package rpc

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/transport"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

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
		testenv.Must(t, c.Start(&q, time.Minute, calls[len(calls)-1]))
	}
	start(10)
	c.Flush()
	start(4 << 20) // more than the socket takes
	c.Flush()
	start(20)
	start(1 << 20)
	c.Flush()
	testenv.Must(t, conns[1].(*net.UnixConn).CloseRead())
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

func (o *outcome) Answered(_ *transport.Answers, _ []byte, err error) { o.told <- err }

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
	testenv.Must(t, c.Start(&q, time.Minute, finder{&r, found}))
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

func (f finder) Answered(*transport.Answers, []byte, error) { f.found <- f.r.Live() }
