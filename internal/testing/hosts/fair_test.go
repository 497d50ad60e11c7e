package hosts

import (
	"bufio"
	"bytes"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// askFresh sends n GETs of a key at once, and reads no answer.
func (c *rawConn) askFresh(key []byte, n uint64) {
	c.t.Helper()
	var batch []byte
	for i := range n {
		batch = wire.AppendRequest(batch, &wire.Request{ID: i, Op: wire.OpGet, Key: key, Options: wire.Fresh, TimeoutMS: 60_000})
	}
	if _, err := c.nc.Write(batch); err != nil {
		c.t.Fatal(err)
	}
}

// TestUnreadReadsOfAnotherHost checks an app that asks another host for a lot and reads
// nothing. The app has as many requests under way as there is room for their answers, and
// gets all answers once it reads.
func TestUnreadReadsOfAnotherHost(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	testenv.ReadsClock(t, 100*time.Millisecond, "no more requests come: they would have been sent by then")
	const n, size = 100, 500_000
	a, other, app, keys := startPair(t, 1)
	value := bytes.Repeat([]byte("x"), size)
	mustSet(t, other, string(keys[0]), value)
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	most := a.engine.Budget.Size() / 16 / size
	testenv.Eventually(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load()-asked >= most/2 })
	time.Sleep(100 * time.Millisecond)
	if got := a.engine.Counts.PeerReads.Load() - asked; got > most+1 {
		t.Errorf("the owner was asked %d times while nothing is read, there is room for %d answers", got, most)
	}
	for range n {
		if r := app.receive(wire.OpGet); r.Status != wire.OK || len(r.Value) != size {
			t.Fatalf("%s %s, %d bytes", r.Status, r.Message, len(r.Value))
		}
	}
}

// dialAsHost returns a connection like another host's.
func dialAsHost(t *testing.T, s *Sidecar) *rawConn {
	t.Helper()
	return dialHandler(t, s, func() server.Handler { return s.sessions.Peer(kv.Process{Node: "other", Epoch: 1}) })
}

// dialHandler returns a connection to a server with a handler of a sidecar.
func dialHandler(t *testing.T, s *Sidecar, handler func() server.Handler) *rawConn {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	testenv.Must(t, err)
	server := server.New(server.Limits{Budget: s.engine.Budget}, slog.New(slog.DiscardHandler), func(net.Conn) (server.Handler, error) {
		return handler(), nil
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), ln) }()
	nc, err := net.Dial("unix", ln.Addr().String())
	testenv.Must(t, err)
	t.Cleanup(func() { nc.Close(); <-served }) // before the sidecar ends
	return &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
}

// TestReadsOfTheGone checks that an app's requests are not sent to another host any more
// after the app's connection has ended.
func TestReadsOfTheGone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	const n, size = 200, 500_000
	a, other, app, keys := startPair(t, 1)
	mustSet(t, other, string(keys[0]), make([]byte, size))
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	testenv.Eventually(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load() > asked })
	_ = app.nc.Close()
	testenv.Eventually(t, "all to end", func() bool { return a.engine.Waiting.Load() == 0 && a.engine.Budget.Stats().Total() == 0 })
	if got, most := a.engine.Counts.PeerReads.Load()-asked, a.engine.Budget.Size()/16/size; got > most+1 {
		t.Errorf("the owner was asked %d times, there is room for %d answers", got, most)
	}
}
