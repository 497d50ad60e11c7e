package engine

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestGiveUp checks that a call is given up if only its maker waits for it, and that no
// read joins the call afterwards.
func TestGiveUp(t *testing.T) {
	s := Remote{base: &base{}}
	alone := &Call{key: kv.Key{Hash: 1}}
	joined := &Call{key: kv.Key{Hash: 2}, told: []*Wait{{}}}
	awaited := &Call{key: kv.Key{Hash: 3}, done: make(chan struct{})}
	for _, cl := range []*Call{alone, joined, awaited} {
		s.Calls.Add(cl.key, func() *Call { return cl })
	}
	joinable := func(cl *Call) bool {
		_, ok := s.Calls.Find(cl.key, func(o *Call) bool { return o == cl })
		return ok
	}
	if !s.giveUp(alone) || joinable(alone) {
		t.Error("one whose maker alone waits goes on, or can be joined")
	}
	if s.giveUp(joined) || s.giveUp(awaited) || !joinable(joined) || !joinable(awaited) {
		t.Error("one that others have joined is given up")
	}
}

// TestWants checks that a long answer is still wanted if other reads have joined its call,
// although its own connection does not take it.
func TestWants(t *testing.T) {
	conn, client := served(t)
	wants := func(told ...*Wait) error {
		cl := &Call{key: kv.Key{Hash: 1}, told: told}
		return (&Wait{Conn: conn, call: cl, e: &Engine{Remote: &Remote{base: &base{}}}}).Wants(1 << 20)
	}
	if err := wants(); err != nil {
		t.Errorf("a connection that reads: %v", err)
	}
	client.Close()
	testenv.Eventually(t, "the end of the connection", func() bool { return conn.Takes(1<<20) != nil })
	if wants() == nil {
		t.Error("an answer is wanted that no connection takes")
	}
	if err := wants(&Wait{}); err != nil {
		t.Errorf("others have joined: %v", err)
	}
}

// served returns a connection that is served, and its client's end.
func served(t *testing.T) (*server.Conn, net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	c := &catcher{conns: make(chan *server.Conn, 1)}
	s := server.New(server.Limits{}, slog.New(slog.DiscardHandler), func(net.Conn) (server.Handler, error) { return c, nil })
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ln) }()
	t.Cleanup(func() { stop(); <-ended })
	client, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if _, err := client.Write(wire.AppendRequest(nil, &wire.Request{Op: wire.OpPing})); err != nil {
		t.Fatal(err)
	}
	return <-c.conns, client
}

// catcher is a handler that passes its connection on.
type catcher struct {
	server.Handler
	conns chan *server.Conn
}

func (c *catcher) Batch()      {}
func (c *catcher) Served()     {}
func (c *catcher) Gone()       {}
func (c *catcher) Close(error) {}

func (c *catcher) Serve(conn *server.Conn, _ [][]byte) error {
	c.conns <- conn
	return nil
}
