package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func TestMain(m *testing.M) { testenv.Main(m) }

// skewedClock is a clock whose wall time is off.
type skewedClock struct {
	kv.Clock
	off time.Duration
}

func (c skewedClock) Read() kv.Moment {
	m := c.Clock.Read()
	m.Wall += c.off.Milliseconds()
	return m
}

func identity(node string, epoch int) *Identity {
	return &Identity{
		Cluster: "test", Self: kv.Process{Node: kv.NodeID(node), Epoch: kv.Epoch(epoch)},
		Settings: map[string]string{"max_staleness": "2s"}, MaxSkew: 500 * time.Millisecond,
		Clock: still, Versions: kv.NewHLC(uint16(epoch)),
		Floors: func() []wire.Floor { return nil }, Learn: func([]wire.Floor) {},
	}
}

// still is the clock of all hosts: it stands still, since a host refuses what another sent
// long ago.
var still = &setClock{kv.Moment{Wall: testenv.Date().UnixMilli(), Boot: time.Hour}}

// echo answers GET with the caller's name and the connection's purpose.
type echo struct {
	from    kv.Process
	purpose Purpose
	closed  *atomic.Int64
}

func (e *echo) Batch()  {}
func (e *echo) Served() {}
func (e *echo) Serve(c *server.Conn, frames [][]byte) error {
	for _, f := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(f, &q); err != nil {
			return err
		}
		c.Out = wire.AppendReply(c.Out, q.Op, &wire.Reply{ID: q.ID, Value: fmt.Append(nil, e.from.Node, " ", e.purpose)})
	}
	return nil
}
func (e *echo) Gone() {}

func (e *echo) Oversized(*server.Conn, []byte, int, error) {}
func (e *echo) Close(error)                                { e.closed.Add(1) }

type testServer struct {
	address string
	closed  atomic.Int64
	mu      sync.Mutex
	refused []string
}

func serve(t *testing.T, id *Identity) *testServer { return serveWith(t, id, nil) }

// serveWith runs a server whose answers are made by reply, if it is not nil.
func serveWith(t *testing.T, id *Identity, reply func(*wire.Request) *wire.Reply) *testServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	testenv.Must(t, err)
	ts := &testServer{address: ln.Addr().String()}
	s := NewServer(id, nil, server.Limits{}, slog.New(slog.DiscardHandler),
		func(from kv.Process, p Purpose) server.Handler {
			if e := (echo{from, p, &ts.closed}); reply != nil {
				return &answers{e, reply}
			}
			return &echo{from, p, &ts.closed}
		},
		func(_ kv.NodeID, err error) {
			ts.mu.Lock()
			ts.refused = append(ts.refused, err.Error())
			ts.mu.Unlock()
		})
	runServer(t, s, ln)
	return ts
}

// runServer serves until the end of the test.
func runServer(t testing.TB, s *Server, ln net.Listener) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// patientPool is NewPool for a machine that is busy with other tests.
func patientPool(cfg PoolConfig) *Pool {
	if cfg.Greeted == nil {
		cfg.Greeted = func(kv.NodeID, kv.Process, error) {}
	}
	p := NewPool(cfg)
	p.dialTimeout = testenv.Patience
	return p
}

func newPool(t *testing.T, id *Identity) *Pool {
	p := patientPool(PoolConfig{Identity: id})
	t.Cleanup(p.Close)
	return p
}

func get(t *testing.T, p *Pool, id kv.Process, purpose Purpose) (string, error) {
	t.Helper()
	var a Answer
	err := p.Do(t.Context(), id, purpose, time.Minute, &wire.Request{Op: wire.OpGet, Key: []byte("k")}, &a)
	defer a.Release()
	return string(a.Value), err
}

// TestFailedCallIsReleased checks that the memory of a call without an answer is given
// back by Release, like that of an answer.
func TestFailedCallIsReleased(t *testing.T) {
	b := identity("b", 2)
	silent := make(chan struct{})
	s := serveWith(t, b, func(q *wire.Request) *wire.Reply { <-silent; return &wire.Reply{ID: q.ID} })
	p := newPool(t, identity("a", 1))
	p.Set(b.Self, s.address)
	if _, _, err := p.Connect(t.Context(), b.Self, Call, time.Minute); err != nil { // a call's time includes that
		t.Fatal(err)
	}
	var a Answer
	err := p.Do(t.Context(), b.Self, Call, 50*time.Millisecond, &wire.Request{Op: wire.OpGet, Key: []byte("k")}, &a)
	if !errors.Is(err, rpc.ErrNoAnswer) {
		t.Errorf("without an answer: %v", err)
	}
	if a.call == nil || a.client == nil {
		t.Errorf("Release has nothing to give back: call %v, client %v", a.call != nil, a.client != nil)
	}
	a.Release()
	a.Release()
	close(silent)
}

func TestCalls(t *testing.T) {
	b := identity("b", 2)
	s := serve(t, b)
	p := newPool(t, identity("a", 1))
	if _, err := get(t, p, b.Self, Call); !errors.Is(err, ErrUnknown) || !NotExecuted(err) {
		t.Errorf("before its address is known: %v", err)
	}
	p.Set(b.Self, s.address)
	for _, purpose := range []Purpose{Call, Poll, Call} {
		if got, err := get(t, p, b.Self, purpose); got != "a "+string(purpose) || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	var a Answer
	keys := [][]byte{[]byte("k"), []byte("l")}
	if err := p.Do(t.Context(), b.Self, Call, time.Minute, &wire.Request{Op: wire.OpDelete, Keys: keys}, &a); err == nil || NotExecuted(err) {
		t.Errorf("an answer to none of two keys is taken: %v", err)
	}
	a.Release()
	// The greeting has exchanged the clocks.
	if va, vb := p.cfg.Identity.Versions.Next(0), b.Versions.Next(0); va == 0 || vb>>32 == 0 {
		t.Errorf("clocks were not exchanged: %v, %v", va, vb)
	}
	older := kv.Process{Node: "b", Epoch: 1}
	if _, err := get(t, p, older, Call); !errors.Is(err, ErrUnknown) {
		t.Errorf("a process that is gone: %v", err)
	}
	p.Remove(b.Self)
	if _, err := get(t, p, b.Self, Call); !errors.Is(err, ErrUnknown) {
		t.Errorf("after Remove: %v", err)
	}
}

// TestGreetingRefuses checks that each side says why it refuses, with both values, and
// that no request is served.
func TestGreetingRefuses(t *testing.T) {
	for _, tc := range []struct {
		name string
		edit func(*Identity)
		want string
	}{
		{"another cluster", func(id *Identity) { id.Cluster = "prod" }, `a belongs to cluster "prod", this one to "test"`},
		{"other settings", func(id *Identity) { id.Settings = map[string]string{"max_staleness": "1s", "x": "y"} }, `max_staleness is "1s" there and "2s" here, x is "y" there and "" here`},
		{"the same name", func(id *Identity) { id.Self.Node = "b" }, "another process calls itself b too"},
		{"a clock ahead", func(id *Identity) { id.Clock = skewedClock{id.Clock, time.Hour} }, "max_clock_skew is 500ms: synchronize the clocks"},
		{"a clock behind", func(id *Identity) { id.Clock = skewedClock{id.Clock, -time.Hour} }, "the clock of a is off by"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := identity("b", 2)
			s := serve(t, b)
			a := identity("a", 1)
			tc.edit(a)
			var told error
			p := patientPool(PoolConfig{Identity: a, Greeted: func(_ kv.NodeID, _ kv.Process, err error) { told = err }})
			defer p.Close()
			p.Set(b.Self, s.address)
			_, err := get(t, p, b.Self, Call)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), tc.want) || !NotExecuted(err) {
				t.Errorf("%v, want %q", err, tc.want)
			}
			if told == nil || !errors.Is(told, ErrRefused) {
				t.Errorf("Greeted was told %v", told)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if len(s.refused) != 1 || !strings.Contains(s.refused[0], tc.want) {
				t.Errorf("the server noted %q", s.refused)
			}
			if s.closed.Load() != 0 {
				t.Error("a request was served")
			}
		})
	}
}

// TestClientRefuses checks that the client checks the answer to its greeting as well.
func TestClientRefuses(t *testing.T) {
	b := identity("b", 2)
	s := serve(t, b)
	a := identity("a", 1)
	p := newPool(t, a)
	other := kv.Process{Node: "b", Epoch: 77}
	p.Set(other, s.address)
	if _, err := get(t, p, other, Call); err == nil || !strings.Contains(err.Error(), "answers there") {
		t.Errorf("another process than expected: %v", err)
	}
}

// TestUnknownVersion greets a server as later versions may. If there is no common version,
// both sides say which ones they speak and what to do, even if the rest of the greeting
// cannot be read. A later version that still speaks this one is greeted, with whatever it
// has added at the end.
func TestUnknownVersion(t *testing.T) {
	s := serve(t, identity("b", 2))
	for _, tc := range []struct {
		name string
		edit func(h *wire.PeerHello) any
		want string // of the refusal; "": it is greeted
	}{
		{"later ones", func(h *wire.PeerHello) any { h.MinVersion, h.MaxVersion = 7, 9; return h },
			"a speaks versions 7 to 9 between sidecars, this one 1 to 1: upgrade the older one"},
		{"later ones, in another form", func(*wire.PeerHello) any { return []any{2, 3, map[string]any{"node": "a"}} },
			"it speaks versions 2 to 3 between sidecars, this one 1 to 1: upgrade the older one"},
		{"none", func(h *wire.PeerHello) any { h.MaxVersion = 0; return h }, "versions 1 to 0 between sidecars"},
		{"this one and later ones", func(h *wire.PeerHello) any { h.MaxVersion = 4; return h }, ""},
		{"an element more", func(h *wire.PeerHello) any { h.MaxVersion = 2; return longer(t, h) }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := identity("a", 1).hello(Call)
			var body []byte
			var err error
			if list, ok := tc.edit(&h).([]any); ok {
				body, err = msgpack.Marshal(list)
			} else {
				body = wire.MarshalBody(&h)
			}
			testenv.Must(t, err)
			nc, err := net.Dial("tcp", s.address)
			testenv.Must(t, err)
			c := rpc.NewClient(nc, rpc.ClientConfig{})
			defer c.Close()
			call, err := c.Do(t.Context(), time.Minute, &wire.Request{Op: wire.OpPeerHello, Body: body})
			testenv.Must(t, err)
			defer c.Release(call)
			var r wire.Reply
			testenv.Must(t, wire.DecodeReply(wire.OpPeerHello, call.Frame(), &r))
			if tc.want == "" && r.Status != wire.OK || !strings.Contains(string(r.Message), tc.want) {
				t.Errorf("got %v %s, want %q", r.Status, r.Message, tc.want)
			}
		})
	}
}

// longer returns a message with one more element.
func longer(t *testing.T, v any) (list []any) {
	t.Helper()
	testenv.Must(t, msgpack.Unmarshal(wire.MarshalBody(v), &list))
	return append(list, map[string]any{"later": true})
}

// TestNewerConnectionReplaces checks that there is one connection for each direction
// and purpose.
func TestNewerConnectionReplaces(t *testing.T) {
	testenv.Takes(t, time.Second)
	b := identity("b", 2)
	s := serve(t, b)
	a := identity("a", 1)
	first, second := newPool(t, a), newPool(t, a)
	for _, p := range []*Pool{first, second} {
		p.Set(b.Self, s.address)
		for _, purpose := range []Purpose{Poll, Call} {
			if _, err := get(t, p, b.Self, purpose); err != nil {
				t.Fatal(err)
			}
		}
	}
	testenv.Eventually(t, "the older ones end", func() bool { return s.closed.Load() >= 2 })
	if got, err := get(t, second, b.Self, Call); err != nil || got != "a call" {
		t.Errorf("the newer one: %q, %v", got, err)
	}
	if n := s.closed.Load(); n != 2 {
		t.Errorf("%d connections ended", n)
	}
}

// TestGarbage sends what other programs might send to the port.
func TestGarbage(t *testing.T) {
	b := identity("b", 2)
	s := serve(t, b)
	hello := wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}}})
	for name, bytes := range map[string]string{
		"HTTP":          "GET / HTTP/1.1\r\n\r\n",
		"an app's":      string(hello),
		"no body":       string(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpPeerHello})),
		"a wrong body":  string(wire.AppendRequest(nil, &wire.Request{ID: 1, Op: wire.OpPeerHello, Body: []byte{0xc0}})),
		"nested arrays": "\x00\x10\x00\x00" + strings.Repeat("\x91", 1<<20),
		"huge":          "\xff\xff\xff\xff",
	} {
		nc, err := net.Dial("tcp", s.address)
		testenv.Must(t, err)
		_, _ = nc.Write([]byte(bytes))
		_ = nc.SetReadDeadline(testenv.Deadline())
		if _, err := io.Copy(io.Discard, nc); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: the connection stays open: %v", name, err)
		}
		nc.Close()
	}
	p := newPool(t, identity("a", 1))
	p.Set(b.Self, s.address)
	if _, err := get(t, p, b.Self, Call); err != nil {
		t.Errorf("a node after all that: %v", err)
	}
}

// TestDeadNode checks that calls fail fast while a node is away, and succeed at its new
// address.
func TestDeadNode(t *testing.T) {
	p := newPool(t, identity("a", 1))
	b := identity("b", 2)
	p.Set(b.Self, testenv.Refusing(t))
	for range 200 {
		if _, err := get(t, p, b.Self, Call); !NotExecuted(err) {
			t.Errorf("%v", err)
		}
	}
	s := serve(t, b)
	p.Set(b.Self, s.address)
	if _, err := get(t, p, b.Self, Call); err != nil {
		t.Errorf("at its new address: %v", err)
	}
}

// TestLeave checks that the calls under way are answered by a process that leaves in order,
// that no call begins, and that the connection ends, also if the process does not answer.
func TestLeave(t *testing.T) {
	for _, c := range []struct {
		name             string
		answers, renewed bool
	}{
		{"answered", true, false},
		{"on a replaced connection", true, true},
		{"closed", false, false},
	} {
		t.Run(c.name, func(t *testing.T) { callUnderWay(t, c.answers, c.renewed) })
	}
}

func callUnderWay(t *testing.T, answers, renewed bool) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s := serveWith(t, identity("b", 2), func(q *wire.Request) *wire.Reply {
		close(asked)
		<-answer
		return &wire.Reply{ID: q.ID}
	})
	p := newPool(t, identity("a", 1))
	p.Set(nodeB, s.address)
	failed := make(chan error, 1)
	go func() {
		var a Answer
		defer a.Release()
		failed <- p.Do(context.Background(), nodeB, Call, time.Minute, &wire.Request{Op: wire.OpGet, Namespace: []byte("n"), Key: []byte("k")}, &a)
	}()
	<-asked
	old := p.Live(nodeB, Call)
	if renewed {
		p.Renew()
		testenv.Eventually(t, "another connection", func() bool { c := p.Live(nodeB, Call); return c != nil && c != old })
	}
	p.Leave(nodeB)
	if _, err := get(t, p, nodeB, Call); !errors.Is(err, ErrUnknown) {
		t.Errorf("a call of a process that has left: %v", err)
	}
	if answers {
		close(answer)
	} else {
		p.Close()
	}
	if err := <-failed; (err == nil) != answers {
		t.Errorf("the call that was under way: %v", err)
	}
	<-old.Done()
	if !answers {
		close(answer)
	}
	p.Close()
}
