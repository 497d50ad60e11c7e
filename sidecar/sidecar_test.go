package sidecar

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a sidecar until the test ends.
func start(t testing.TB, cfg Config) *Sidecar {
	t.Helper()
	if cfg.Socket == "" {
		cfg.Socket = filepath.Join(t.TempDir(), "s")
	}
	cfg.L2Size = cmp.Or(cfg.L2Size, 8<<20)
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, time.Minute)
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- err
		t.Fatalf("Run: %v", err)
	}
	return s
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
	if err != nil {
		t.Fatal(err)
	}
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
	if err := wire.DecodeReply(op, frame, &r); err != nil {
		c.t.Fatal(err)
	}
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

// TestEveryOp runs a sequence of requests on a few keys, one request a line.
func TestEveryOp(t *testing.T) {
	s := start(t, Config{Node: "host-a"})
	c := dial(t, s)
	big := strings.Repeat("x", kvMaxKey+1)
	var version uint64 // of the last write that stored a value
	for i, tc := range []struct {
		q    wire.Request
		want string // status, then the fields that matter
	}{
		{wire.Request{Op: wire.OpPing}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1"), TTLMS: wire.TTLDefault, Flags: 9}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("a")}, "OK 1 flags 9 ttl 3600000 l2"},
		{wire.Request{Op: wire.OpGet, Namespace: b("default"), Key: b("a")}, "OK 1 flags 9 ttl 3600000 l2"},
		{wire.Request{Op: wire.OpGet, Namespace: b("other"), Key: b("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("2"), Mode: wire.ModeAdd}, "EXISTS"},
		{wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("2"), Mode: wire.ModeCAS, Compare: 1}, "EXISTS"},
		{wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("2"), Mode: wire.ModeCAS, Compare: 0}, "OK"}, // 0: filled in below
		{wire.Request{Op: wire.OpSet, Key: b("b"), Value: b("2"), Mode: wire.ModeReplace}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: b("b"), Value: b("2"), Mode: wire.ModeCAS, Compare: 1}, "MISS not_cached"},
		{wire.Request{Op: wire.OpSet, Key: b("b"), Value: b("2"), Mode: wire.ModeAdd, TTLMS: 0}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("b")}, "OK 2 flags 0 ttl 0 l2"},
		{wire.Request{Op: wire.OpTouch, Key: b("b"), TTLMS: 60_000}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("b")}, "OK 2 flags 0 ttl 60000 l2"},
		{wire.Request{Op: wire.OpTouch, Key: b("c"), TTLMS: 60_000}, "MISS not_cached"},
		{wire.Request{Op: wire.OpMGet, Keys: keysOf("a", "c", "b", big)}, "OK [OK 2 flags 0 ttl 0 l2, MISS not_cached, OK 2 flags 0 ttl 60000 l2, BAD_REQUEST the key has 1025 bytes: a key has 1 to 1024]"},
		{wire.Request{Op: wire.OpIncr, Key: b("a"), Delta: 40, TTLMS: wire.TTLDefault}, "OK number 42"},
		{wire.Request{Op: wire.OpIncr, Key: b("n"), Delta: 1}, "MISS not_cached"},
		{wire.Request{Op: wire.OpIncr, Key: b("n"), Delta: 1, Create: true, Initial: 7}, "OK number 7"},
		{wire.Request{Op: wire.OpSet, Key: b("w"), Value: b("word")}, "OK"},
		{wire.Request{Op: wire.OpIncr, Key: b("w"), Delta: 1}, "NOT_STORED the value is no decimal 64-bit number: SET one first, or DELETE the key and give an initial value"},
		{wire.Request{Op: wire.OpDelete, Keys: keysOf("a", "c")}, "OK [OK, MISS]"},
		{wire.Request{Op: wire.OpGet, Key: b("a")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpRing, Key: b("a")}, "OK body"},
		{wire.Request{Op: wire.OpMembers}, "OK body"},
		{wire.Request{Op: wire.OpStats}, "OK body"},
		{wire.Request{Op: wire.OpGet, Key: b("")}, "BAD_REQUEST the key has 0 bytes: a key has 1 to 1024"},
		{wire.Request{Op: wire.OpSet, Key: b(big)}, "BAD_REQUEST the key has 1025 bytes: a key has 1 to 1024"},
		{wire.Request{Op: wire.OpSet, Namespace: b("Bad"), Key: b("a")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
		{wire.Request{Op: wire.OpGet, Namespace: b("Bad"), Key: b("a")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
		{wire.Request{Op: wire.OpDelete, Namespace: b("Bad"), Keys: keysOf("a")}, `OK [BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -]`},
		{wire.Request{Op: wire.OpSet, Key: b("v"), Value: make([]byte, 512<<10+1)}, "TOO_LARGE the value has 524289 bytes, max_value is 524288: split it, or raise max_value"},
		{wire.Request{Op: wire.OpDelete, Keys: keysOf("b"), ReplicaLagMS: 5}, "OK [OK]"},
		{wire.Request{Op: wire.OpSet, Key: b("b"), Value: b("2"), TTLMS: 60_000}, "OK"},
		{wire.Request{Op: wire.OpLease, Key: b("b")}, "OK"},
		{wire.Request{Op: wire.OpFill, Key: b("b"), Token: b("none"), Value: b("x"), TTLMS: wire.TTLDefault}, "NOT_STORED the token is none that the present owner of the key \"b\" has issued: use the value, and ask again next time"},
		{wire.Request{Op: wire.OpWatch}, "OK body"},
		{wire.Request{Op: wire.OpFlush, Namespace: b("other")}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("b")}, "OK 2 flags 0 ttl 60000 l2"},
		{wire.Request{Op: wire.OpFlush, Options: wire.All | wire.Cluster}, "OK"},
		{wire.Request{Op: wire.OpGet, Key: b("b")}, "MISS not_cached"},
		{wire.Request{Op: wire.OpFlush, Namespace: b("Bad")}, `BAD_REQUEST namespace "Bad": a name is 1 to 64 of a-z, 0-9, _, . and -`},
	} {
		q := tc.q
		if q.Mode == wire.ModeCAS && q.Compare == 0 {
			q.Compare = version
		}
		r := c.call(&q)
		if q.Op == wire.OpSet && r.Status == wire.OK {
			if r.Version <= version {
				t.Errorf("step %d: version %d after %d", i, r.Version, version)
			}
			version = r.Version
		}
		if got := show(q.Op, &r, true); got != tc.want {
			t.Errorf("step %d, %s %s: got %q, want %q", i, q.Op, q.Key, got, tc.want)
		}
	}
}

const kvMaxKey = 1024

func show(op wire.Op, r *wire.Reply, whole bool) string {
	text := r.Status.String()
	switch {
	case r.Status.IsError() || r.Status == wire.NotStored:
		return text + " " + string(r.Message)
	case r.Status == wire.Miss && op != wire.OpDelete:
		return text + " " + r.Why.String()
	case r.Status != wire.OK:
		return text
	case whole && (op == wire.OpMGet || op == wire.OpDelete):
		var items []string
		for i := range r.Items {
			items = append(items, show(op, &r.Items[i], false))
		}
		return text + " [" + strings.Join(items, ", ") + "]"
	case op == wire.OpGet || op == wire.OpMGet:
		ttl := (r.TTLMS + 999) / 1000 * 1000 // some of it has passed already
		return fmt.Sprintf("%s %s flags %d ttl %d %s", text, r.Value, r.Flags, ttl, r.Source)
	case op == wire.OpIncr:
		return fmt.Sprintf("%s number %d", text, r.Number)
	case r.Body != nil:
		return text + " body"
	}
	return text
}

func TestHelloComesFirst(t *testing.T) {
	s := start(t, Config{})
	nc, err := net.Dial("unix", s.SocketPath())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	c := &rawConn{t: t, nc: nc, r: bufio.NewReader(nc)}
	if r := c.call(&wire.Request{Op: wire.OpGet, Key: b("a")}); r.Status != wire.BadRequest || !strings.Contains(string(r.Message), "say HELLO") {
		t.Errorf("GET before HELLO: %s %s", r.Status, r.Message)
	}
	if r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{99}}}); r.Status != wire.Unsupported || !strings.Contains(string(r.Message), "speaks [2 1]: upgrade the older") {
		t.Errorf("unknown version: %s %s", r.Status, r.Message)
	}
	if r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{99, 1}, Namespace: "mine"}}); r.Status != wire.OK {
		t.Errorf("%s %s", r.Status, r.Message)
	}
	c.call(&wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1")})
	if r := c.call(&wire.Request{Op: wire.OpGet, Namespace: b("mine"), Key: b("a")}); string(r.Value) != "1" {
		t.Errorf("the default namespace of HELLO was not used: %s", r.Status)
	}
}

// TestWelcome checks that HELLO tells the limits, and that they are true.
func TestWelcome(t *testing.T) {
	s := start(t, Config{Node: "host-a", MaxValue: 1000, Version: "1.2.3"})
	c := dial(t, s)
	r := c.call(&wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}})
	var w wire.Welcome
	if err := wire.UnmarshalBody(r.Body, &w); err != nil {
		t.Fatal(err)
	}
	if w.Node != "host-a" || w.Server != "1.2.3" || w.Version != 1 || w.Limits.Value != 1000 || w.Limits.Key != kvMaxKey {
		t.Errorf("%+v", w)
	}
	if r := c.call(&wire.Request{Op: wire.OpSet, Key: b("k"), Value: make([]byte, w.Limits.Value)}); r.Status != wire.OK {
		t.Errorf("the longest value: %s %s", r.Status, r.Message)
	}
	if r := c.call(&wire.Request{Op: wire.OpSet, Key: b("k"), Value: make([]byte, w.Limits.Value+1)}); r.Status != wire.TooLarge {
		t.Errorf("one byte more: %s", r.Status)
	}
	for _, f := range w.Features {
		var op wire.Op
		for o := wire.OpHello; o < wire.OpCount; o++ {
			if strings.EqualFold(o.String(), f) {
				op = o
			}
		}
		if op == 0 {
			t.Errorf("feature %q is no op", f)
		}
		if op == wire.OpLeaving { // answered at the end of the sidecar only
			continue
		}
		if r := c.call(&wire.Request{Op: op, Key: b("k"), Keys: keysOf("k"), Namespace: b("default")}); r.Status == wire.Unsupported {
			t.Errorf("feature %q is not served", f)
		}
	}
}

// TestPipelineKeepsOrder checks that requests of one connection for one key take effect
// in their order, even within one batch.
func TestPipelineKeepsOrder(t *testing.T) {
	s := start(t, Config{})
	c := dial(t, s)
	var batch []byte
	for i := range 200 {
		batch = wire.AppendRequest(batch, &wire.Request{ID: uint64(2 * i), Op: wire.OpSet, Key: b("k"), Value: fmt.Append(nil, i)})
		batch = wire.AppendRequest(batch, &wire.Request{ID: uint64(2*i + 1), Op: wire.OpGet, Key: b("k")})
	}
	if _, err := c.nc.Write(batch); err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		c.receive(wire.OpSet)
		if r := c.receive(wire.OpGet); string(r.Value) != fmt.Sprint(i) {
			t.Fatalf("GET after SET %d = %q", i, r.Value)
		}
	}
}

// TestLargeAnswers checks values up to the limit, alone and in MGET. In MGET an answer
// that becomes too long ends in BUSY.
func TestLargeAnswers(t *testing.T) {
	s := start(t, Config{L2Size: 256 << 20})
	c := dial(t, s)
	sizes := []int{30 << 10, 31 << 10, 32 << 10, 64 << 10, 65 << 10, 1 << 20, 8 << 20}
	var keys [][]byte
	for i, n := range sizes {
		key := fmt.Appendf(nil, "k%d", i)
		keys = append(keys, key)
		value := bytes.Repeat([]byte{byte(i)}, n)
		if r := c.call(&wire.Request{Op: wire.OpSet, Key: key, Value: value}); r.Status != wire.OK {
			t.Fatalf("SET of %d bytes: %s %s", n, r.Status, r.Message)
		}
		if r := c.call(&wire.Request{Op: wire.OpGet, Key: key}); !bytes.Equal(r.Value, value) {
			t.Errorf("GET of %d bytes: %s, %d bytes", n, r.Status, len(r.Value))
		}
	}
	r := c.call(&wire.Request{Op: wire.OpMGet, Keys: keys})
	for i, n := range sizes {
		if r.Items[i].Status != wire.OK || len(r.Items[i].Value) != n {
			t.Errorf("MGET item %d: %s, %d bytes, want %d", i, r.Items[i].Status, len(r.Items[i].Value), n)
		}
	}
	r = c.call(&wire.Request{Op: wire.OpMGet, Keys: [][]byte{keys[6], keys[6], keys[6], keys[0]}})
	for i, want := range []wire.Status{wire.OK, wire.OK, wire.Busy, wire.Busy} {
		if r.Items[i].Status != want {
			t.Errorf("MGET beyond 16 MiB, item %d: %s, want %s", i, r.Items[i].Status, want)
		}
	}
	// The buffers are given back after the answer is written.
	for deadline := time.Now().Add(time.Minute); s.server.Stats().BufferBytes != 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes of buffers are still held", s.server.Stats().BufferBytes)
		}
	}
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
	if err := wire.UnmarshalBody(r.Body, &st); err != nil {
		t.Fatal(err)
	}
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

func TestHTTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	if s, err := New(Config{NoSocket: true, L2Size: 8 << 20, HTTP: address}); err != nil {
		t.Error(err)
	} else if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "choose another address") {
		t.Errorf("an address in use: %v", err)
	}
	ln.Close()
	s := start(t, Config{HTTP: address})
	c := dial(t, s)
	c.call(&wire.Request{Op: wire.OpSet, Key: b("a"), Value: b("1")})
	c.call(&wire.Request{Op: wire.OpGet, Key: b("a")})
	transport := &http.Transport{DisableKeepAlives: true}
	hc := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	get := func(path string) (int, string) {
		resp, err := hc.Get("http://" + address + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/nothing": 404, "/debug/pprof/": 404} {
		if code, _ := get(path); code != want {
			t.Errorf("%s: %d, want %d", path, code, want)
		}
	}
	_, page := get("/metrics")
	for _, line := range []string{
		`cachesidecar_requests_total{namespace="default",op="GET",result="hit",tier="l2"} 1`,
		`cachesidecar_requests_total{namespace="default",op="SET",result="ok",tier=""} 1`,
		`cachesidecar_memory_limit_bytes{tier="l2"} 8.388608e+06`,
		`cachesidecar_entries{tier="l2"} 1`,
		`cachesidecar_connections 1`,
		`cachesidecar_build_info{`,
		`go_goroutines`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("/metrics has no %s", line)
		}
	}
}

// TestShutdownOrder checks that requests that the socket has accepted are answered while
// the store still exists. Afterwards the socket's file is gone, and calls return
// ErrClosed.
func TestShutdownOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	s, err := New(Config{Socket: path, L2Size: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
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
	if err != nil {
		t.Fatal(err)
	}
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

// TestHitAllocatesNothing checks the guarantee of the hot path, in the socket's protocol and
// in memcached's.
func TestHitAllocatesNothing(t *testing.T) {
	for _, op := range servedOps {
		for _, n := range []int{1, 32} {
			h, conn, frames := serveSetup(t, op)
			at, answer := 0, []byte(answersOf[op])
			allocs := testing.AllocsPerRun(2000, func() {
				h.Batch()
				if err := h.Serve(conn, frames[at:at+n]); err != nil {
					t.Fatal(err)
				}
				h.Served()
				if len(conn.Out) == 0 || !bytes.HasPrefix(conn.Out, answer) {
					t.Fatalf("%s: got %q, want %q", op, conn.Out, answer)
				}
				conn.Out = conn.Out[:0]
				at = (at + n) % (len(frames) - n)
			})
			if allocs != 0 {
				t.Errorf("%d × %s: %v allocations", n, op, allocs)
			}
		}
	}
}
