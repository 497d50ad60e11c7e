package hosts

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// TestMain has the garbage collected more rarely: what a host holds is small, and each process makes much at its start.
func TestMain(m *testing.M) {
	debug.SetGCPercent(200) // at 400 the peak is 3 GB
	testenv.Main(m)
}

// start runs a sidecar until the test ends. The default timeouts are long enough for a
// machine that stalls.
func start(t testing.TB, cfg Config) *Sidecar {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "s")
	}
	cfg.L2Size = cmp.Or(cfg.L2Size, 8<<20)
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, time.Minute)
	if cfg.Bind != "" {
		cfg.MaxStaleness = cmp.Or(cfg.MaxStaleness, 5*time.Second)
	}
	s, err := New(cfg)
	testenv.Must(t, err)
	return run(t, s).Sidecar
}

// rawConn is a client that speaks the bare protocol.
type rawConn struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	id uint64
}

func dial(t testing.TB, s *Sidecar) *rawConn {
	t.Helper()
	nc, err := net.Dial("unix", s.SocketPath())
	testenv.Must(t, err)
	t.Cleanup(func() { nc.Close() })
	c := &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
	if r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}}); r.Status != wire.OK {
		t.Fatalf("HELLO: %s %s", r.Status, r.Message)
	}
	return c
}

func (c *rawConn) send(q *wire.Request) {
	c.t.Helper()
	c.id++
	q.ID = c.id
	if _, err := c.nc.Write(wire.AppendRequest(nil, q)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *rawConn) receive(op wire.Op) wire.Reply {
	c.t.Helper()
	return c.decode(op, c.frame())
}

func (c *rawConn) frame() []byte {
	c.t.Helper()
	var head [wire.LengthSize]byte
	_ = c.nc.SetReadDeadline(testenv.Deadline())
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		c.t.Fatal(err)
	}
	frame := make([]byte, wire.FrameLength(head[:]))
	if _, err := io.ReadFull(c.r, frame); err != nil {
		c.t.Fatal(err)
	}
	return frame
}

func (c *rawConn) decode(op wire.Op, frame []byte) wire.Reply {
	c.t.Helper()
	var r wire.Reply
	testenv.Must(c.t, wire.DecodeReply(op, frame, &r))
	return r
}

func (c *rawConn) call(q *wire.Request) wire.Reply {
	c.t.Helper()
	c.send(q)
	r := c.receive(q.Op)
	if r.ID != q.ID {
		c.t.Fatalf("answer to %d, want %d", r.ID, q.ID)
	}
	return r
}

func b(s string) []byte { return []byte(s) }

func keysOf(names ...string) (list [][]byte) {
	for _, n := range names {
		list = append(list, b(n))
	}
	return list
}

func TestStatsCount(t *testing.T) {
	s := start(t, Config{Node: "host-a"})
	c := dial(t, s)
	c.call(&wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1")})
	c.call(&wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1"), Mode: wire.ModeAdd})
	c.call(&wire.Request{Op: wire.OpGet, Key: b("a")})
	c.call(&wire.Request{Op: wire.OpGet, Key: b("b")})
	c.call(&wire.Request{Op: wire.OpMGet, Keys: keysOf("a", "b", "c")})
	c.call(&wire.Request{Op: wire.OpDelete, Keys: keysOf("a", "b")})
	r := c.call(&wire.Request{Op: wire.OpStats})
	var st cachesidecar.Stats
	testenv.Must(t, wire.UnmarshalBody(r.Body, &st))
	ns := st.Namespaces[0]
	if ns.Name != "default" || ns.Hits != 2 || ns.Misses != 3 || ns.Writes != 1 || ns.Refused != 1 || ns.Deletes != 2 || ns.Errors != 0 {
		t.Errorf("%+v", ns)
	}
	if st.Node != "host-a" || st.Connections.Open != 1 || st.L2.Memory.Limit != 8<<20 || st.Process.PID == 0 {
		t.Errorf("%+v", st)
	}
	m := st.L2.Memory
	if sum := m.Payload + m.Headers + m.Alignment + m.Dead + m.Open + m.Tails + m.Index + m.Ghosts + m.Quotas; sum != m.Used {
		t.Errorf("parts of the memory make %d, used %d", sum, m.Used)
	}
}

// TestShutdownOrder checks that requests that the socket has accepted are answered while
// the store still exists. Afterwards the socket's file is gone, and calls return
// ErrClosed.
func TestShutdownOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := New(Config{Socket: path, L2Size: 8 << 20})
	testenv.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	<-s.Ready()
	c := dial(t, s)
	c.call(&wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1")})
	if _, err := New(Config{Socket: path, L2Size: 8 << 20}); err != nil {
		t.Error(err) // New listens nowhere
	}
	second, err := New(Config{Socket: path, L2Size: 8 << 20})
	testenv.Must(t, err)
	if err := second.Run(ctx); !errors.Is(err, unixsock.ErrRunning) {
		t.Errorf("a second sidecar: %v", err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), "default", "a", cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrClosed) {
		t.Errorf("Get after Run: %v", err)
	}
	if err := s.Run(t.Context()); !errors.Is(err, cachesidecar.ErrClosed) {
		t.Errorf("Run again: %v", err)
	}
	if _, err := net.Dial("unix", path); err == nil {
		t.Error("the socket is still served")
	}
}
