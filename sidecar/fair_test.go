package sidecar

import (
	"bufio"
	"bytes"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/machine"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
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
	const n, size = 200, 500_000
	a, other, app, keys := startPair(t, 1)
	value := bytes.Repeat([]byte("x"), size)
	if _, err := other.Set(t.Context(), "default", string(keys[0]), value, cachesidecar.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	most := a.engine.Budget.Size() / 16 / size
	soon(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load()-asked >= most/2 })
	time.Sleep(100 * time.Millisecond) // the other requests would have been sent by then
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
	return dialHandler(t, s, func() rpc.Handler { return s.doors.Peer(kv.Process{Node: "other", Epoch: 1}) })
}

// dialHandler returns a connection to a server with a handler of a sidecar.
func dialHandler(t *testing.T, s *Sidecar, handler func() rpc.Handler) *rawConn {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.NewServer(rpc.Limits{Budget: s.engine.Budget}, slog.New(slog.DiscardHandler), func(net.Conn) (rpc.Handler, error) {
		return handler(), nil
	})
	served := make(chan error, 1)
	go func() { served <- server.Serve(t.Context(), ln) }()
	nc, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close(); <-served }) // before the sidecar ends
	return &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
}

// TestReadsOfTheGone checks that an app's requests are not sent to another host any more
// after the app's connection has ended.
func TestReadsOfTheGone(t *testing.T) {
	const n, size = 200, 500_000
	a, other, app, keys := startPair(t, 1)
	if _, err := other.Set(t.Context(), "default", string(keys[0]), make([]byte, size), cachesidecar.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	asked := a.engine.Counts.PeerReads.Load()
	app.askFresh(keys[0], n)
	soon(t, "the first", func() bool { return a.engine.Counts.PeerReads.Load() > asked })
	_ = app.nc.Close()
	soon(t, "all to end", func() bool { return a.engine.Waiting.Load() == 0 && a.engine.Budget.Stats().Total() == 0 })
	if got, most := a.engine.Counts.PeerReads.Load()-asked, a.engine.Budget.Size()/16/size; got > most+1 {
		t.Errorf("the owner was asked %d times, there is room for %d answers", got, most)
	}
}

// TestLongAnswersToHosts checks that short reads of another host are answered before the
// long ones that it has asked for earlier.
func TestLongAnswersToHosts(t *testing.T) {
	const longs = 30
	s := start(t, Config{})
	app := dial(t, s)
	for key, size := range map[string]int{"long": 500_000, "short": 10} {
		if r := app.call(&wire.Request{Op: wire.OpSet, Key: []byte(key), Value: make([]byte, size)}); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	c := dialAsHost(t, s)
	var batch []byte
	for i := range uint64(longs) {
		batch = wire.AppendRequest(batch, &wire.Request{ID: i, Op: wire.OpGet, Key: []byte("long"), Options: wire.Attest})
	}
	batch = wire.AppendRequest(batch, &wire.Request{ID: longs, Op: wire.OpGet, Key: []byte("short"), Options: wire.Attest})
	if _, err := c.nc.Write(batch); err != nil {
		t.Fatal(err)
	}
	for i := range longs + 1 {
		r := c.receive(wire.OpGet)
		if r.Status != wire.OK || !r.Attested {
			t.Fatalf("%s %s, attested: %v", r.Status, r.Message, r.Attested)
		}
		if r.ID == longs && i > 2 {
			t.Errorf("the short answer is number %d", i)
		}
	}
}

// TestLongThatHasGone checks a long value that another host has asked for, and that is
// gone when its turn comes. A LEASE that waits for a new value does not hold up the long
// answers behind it.
func TestLongThatHasGone(t *testing.T) {
	s := start(t, Config{})
	app := dial(t, s)
	for _, key := range []string{"long", "gone"} {
		if r := app.call(&wire.Request{Op: wire.OpSet, Key: []byte(key), Value: make([]byte, 500_000)}); r.Status != wire.OK {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	c := dialAsHost(t, s)
	_ = c.nc.SetDeadline(time.Now().Add(time.Minute))
	for _, q := range []wire.Request{{Op: wire.OpGet, Key: b("long")}, {Op: wire.OpGet, Key: b("long")}, *leaseOf("gone", 20*time.Second), {Op: wire.OpGet, Key: b("long")}} {
		c.send(&q)
	}
	soon(t, "all to wait", func() bool { return s.engine.Waiting.Load() >= 2 && s.engine.Counts.Served.Load() == 1 })
	app.call(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{b("gone")}})
	token := app.call(leaseOf("gone", time.Minute)).Token
	for range 3 {
		frame := c.frame()
		if id, _ := wire.PeekID(frame); id == 3 {
			t.Fatalf("LEASE: %s before what is behind it", c.decode(wire.OpLease, frame).Status)
		}
	}
	app.call(&wire.Request{Op: wire.OpFill, Key: b("gone"), Token: token, Value: b("new"), TTLMS: wire.TTLDefault})
	is(t, "the LEASE", c.receive(wire.OpLease), wire.OK, "new")
}

// TestLongWithoutReader checks that long answers are not made after their connection has
// ended.
func TestLongWithoutReader(t *testing.T) {
	const longs = 200
	s := start(t, Config{})
	if r := dial(t, s).call(&wire.Request{Op: wire.OpSet, Key: b("long"), Value: make([]byte, 500_000)}); r.Status != wire.OK {
		t.Fatalf("%s %s", r.Status, r.Message)
	}
	c := dialAsHost(t, s)
	for range longs {
		c.send(&wire.Request{Op: wire.OpGet, Key: b("long")})
	}
	soon(t, "all to wait", func() bool { return s.engine.Waiting.Load() >= longs-2 })
	before := s.engine.Store.Stats().Hits
	_ = c.nc.Close()
	soon(t, "none to wait", func() bool { return s.engine.Waiting.Load() == 0 })
	if n := s.engine.Store.Stats().Hits - before; n > 5 {
		t.Errorf("%d values were copied for a host that has gone", n)
	}
}

// TestHeapLimit checks that the memory limit for Go's runtime is more than what is
// configured, and no more than the machine has.
func TestHeapLimit(t *testing.T) {
	s := &Sidecar{} // not started: a running sidecar reads its configuration
	s.present = Config{L1Size: 16 << 20, L2Size: 16 << 20, BufferSize: 64 << 20, MaxConnections: 1000}
	s.engine = &engine.Engine{Names: &namespaces.Table{}}
	want := int64(2*16<<20 + 64<<20 + 1000*6<<10 + 96<<20)
	if n := s.HeapLimit(); n != want {
		t.Errorf("%s, want %s", fmt.Sprint(Size(n)), Size(want))
	}
	filter, err := keyfilter.New(keyfilter.Config{Keys: 10_000_000})
	if err != nil {
		t.Fatal(err)
	}
	s.engine.Names.Filters[0].Store(&namespaces.KeyFilter{Filter: filter})
	// For each of two copies one byte a key, and a little more.
	if n := s.HeapLimit() - want; n < 2*10_000_000 {
		t.Errorf("a filter of 10 million keys adds %s", Size(n))
	}
	s.engine.Names.Filters[0].Store(nil)
	if have, _ := machine.Memory(); have > 0 {
		s.present.L2Size = Size(have) - 100<<20
		if n := s.HeapLimit(); n != 100<<20 {
			t.Errorf("%s beside an L2 that leaves 100 MiB", Size(n))
		}
	}
}
