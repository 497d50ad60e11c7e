package session_test

import (
	"bytes"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// gate is an origin without a row. Its calls wait until it opens.
type gate struct {
	asked chan struct{} // one for each call
	open  chan struct{}

	mu      sync.Mutex
	written []string
}

func newGate() *gate { return &gate{asked: make(chan struct{}, 16), open: make(chan struct{})} }

func (g *gate) wait(ctx context.Context) error {
	g.asked <- struct{}{}
	select {
	case <-g.open:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *gate) Load(ctx context.Context, _ []byte) (loader.Value, error) {
	if err := g.wait(ctx); err != nil {
		return loader.Value{}, err
	}
	return loader.Value{}, loader.ErrAbsent
}

func (g *gate) Store(ctx context.Context, _ []byte, v loader.Value) error {
	return g.write(ctx, string(bytes.Clone(v.Bytes)))
}

func (g *gate) Delete(ctx context.Context, _ []byte) error { return g.write(ctx, "deleted") }

func (g *gate) write(ctx context.Context, what string) error {
	g.mu.Lock()
	g.written = append(g.written, what)
	g.mu.Unlock()
	return g.wait(ctx)
}

// behind returns a host with the gate as its origin.
func (g *gate) behind(t *testing.T, through bool) *doors.Host {
	return doors.Serve(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) {
		s.Origin = loader.Custom{Source: g}
		if through {
			s.Origin, s.WriteThrough = loader.Custom{Source: g, Writer: g}, true
		}
	})})
}

// wait waits until so many requests wait in the host.
func wait(t *testing.T, h *doors.Host, n int64) {
	t.Helper()
	testenv.Eventually(t, "the requests to wait", func() bool { return h.Waiting.Load() == n })
}

// ending says how a client leaves a connection on which it waits for an answer.
type ending struct {
	name     string
	by       func(net.Conn) error
	executed bool // what waits is executed all the same
}

var endings = []ending{
	{"it is closed", net.Conn.Close, false},
	{"the client sends nothing more", func(c net.Conn) error { return c.(*net.UnixConn).CloseWrite() }, true},
}

// TestWritesEndWithTheirConnection checks that a write which still waits when its client has
// closed the connection is not executed: it would replace what other clients have written since.
// Here it waits for an earlier request of the connection.
func TestWritesEndWithTheirConnection(t *testing.T) {
	t.Parallel() // each case has a host of its own, and some wait for a second
	for _, tc := range []struct {
		name string
		q    wire.Request
		text string // the same in memcached's protocol
		late string // the value of the key after it
	}{
		{"SET", wire.Request{Op: wire.OpSet, Value: []byte("1"), TTLMS: wire.TTLDefault}, "set k 0 0 1\r\n1\r\n", "1"},
		{"REPLACE", wire.Request{Op: wire.OpSet, Value: []byte("1"), Mode: wire.ModeReplace}, "ms k 1 MR\r\n1\r\n", "1"},
		{"APPEND", wire.Request{Op: wire.OpSet, Value: []byte("1"), Mode: wire.ModeAppend}, "append k 0 0 1\r\n1\r\n", "21"},
		{"INCR", wire.Request{Op: wire.OpIncr, Delta: 1, TTLMS: wire.TTLDefault}, "incr k 1\r\n", "3"},
		{"DELETE, which makes only a miss", wire.Request{Op: wire.OpDelete, Keys: doors.Keys("k")}, "delete k\r\n", ""},
	} {
		for _, e := range endings {
			check := func(t *testing.T, h *doors.Host, g *gate, nc net.Conn, waiting int64, late bool, settled func()) {
				t.Helper()
				wait(t, h, waiting)
				testenv.Must(t, e.by(nc))
				h.App().Set("k", []byte("2"))
				close(g.open)
				wait(t, h, 0)
				settled()
				want := "2"
				if late {
					want = tc.late
				}
				// A deletion may come before the SET above, once the read that it waits for has ended with its client.
				early := tc.late == "" && !e.executed
				if r := h.Get("k", 0); string(r.Value) != want && !(early && string(r.Value) == "2") {
					t.Errorf("the key is %q, want %q", r.Value, want)
				}
			}
			t.Run(tc.name+" when "+e.name, func(t *testing.T) {
				t.Parallel()
				g, q := newGate(), tc.q
				h := g.behind(t, false)
				c := h.App()
				c.Begin(wire.Request{Op: wire.OpGet, Key: []byte("k")})
				<-g.asked
				if q.Keys == nil {
					q.Key = []byte("k")
				}
				id := c.Begin(q)
				check(t, h, g, c.Conn, 2, e.executed || tc.late == "", func() {})
				for left := 2; e.executed && left > 0; left-- { // the GET ends first, and its answer may be the second
					frame := c.Frame()
					if of, _ := wire.PeekID(frame); of != id {
						continue
					}
					if r := c.Decode(q.Op, frame); r.Status != wire.OK {
						t.Errorf("the answer is %s %s", r.Status, r.Message)
					}
				}
			})
			t.Run(tc.name+" in memcached's protocol when "+e.name, func(t *testing.T) {
				t.Parallel()
				g := newGate()
				h := g.behind(t, false)
				c := h.Text()
				c.Send("get k\r\n")
				<-g.asked
				c.Send(tc.text)
				// What is behind the read has not begun.
				check(t, h, g, c.Conn, 1, e.executed, func() {
					testenv.Eventually(t, "the connection to end", func() bool {
						return h.Servers["memcached over unix"].Stats().Open == 0
					})
				})
			})
		}
	}
}

// TestWritesWithoutAnAnswerOutliveTheirConnection checks that a write that waits is executed after its
// client has closed the connection, if the client wants no answer to it.
func TestWritesWithoutAnAnswerOutliveTheirConnection(t *testing.T) {
	for _, command := range []string{"set k 0 0 1 noreply\r\n1\r\n", "ms k 1 q\r\n1\r\n"} {
		g := newGate()
		h := g.behind(t, true)
		c := h.Text()
		c.Send(command)
		<-g.asked
		_ = c.Close()
		close(g.open)
		wait(t, h, 0)
		onehost.Is(t, command, h.Get("k", 0), wire.OK, "1")
	}
}

// TestWritesThroughEndWithTheirConnection checks that an origin is not asked for a write that
// waited for its key's turn when its client closed the connection.
func TestWritesThroughEndWithTheirConnection(t *testing.T) {
	set := func(value string) wire.Request {
		return wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte(value), TTLMS: wire.TTLDefault}
	}
	for _, q := range []wire.Request{set("1"), {Op: wire.OpDelete, Keys: doors.Keys("k")}} {
		g := newGate()
		h := g.behind(t, true)
		h.App().Begin(set("0"))
		<-g.asked
		ended, last := h.App(), h.App()
		ended.Begin(q)
		wait(t, h, 2)
		_ = ended.Close()
		last.Begin(set("2"))
		wait(t, h, 3)
		close(g.open)
		if r := last.Receive(wire.OpSet); r.Status != wire.OK {
			t.Errorf("%s %s", r.Status, r.Message)
		}
		wait(t, h, 0)
		if want := []string{"0", "2"}; !slices.Equal(g.written, want) {
			t.Errorf("%s: the origin was asked to write %q, want %q", q.Op, g.written, want)
		}
	}
}

// TestBatchEndsWithItsConnection checks that a write is not executed if it was read together
// with requests for which the reader had to wait, and the client has closed the connection
// meanwhile.
func TestBatchEndsWithItsConnection(t *testing.T) {
	g := newGate()
	h := g.behind(t, false)
	l := h.Limits()
	l.MaxInFlight = 1
	c := doors.NewConn(t, h.Dial("one at a time", "unix", l, func(net.Conn) (server.Handler, error) {
		return h.Sessions.Of(h.Access.Memcached(), h.Budget.Open("app", "")), nil
	}))
	var batch []byte
	for i, q := range []wire.Request{
		{Op: wire.OpGet, Key: []byte("a")},
		{Op: wire.OpGet, Key: []byte("b")}, // waits until the first one has ended
		{Op: wire.OpSet, Key: []byte("k"), Value: []byte("1"), TTLMS: wire.TTLDefault},
		{Op: wire.OpIncr, Key: []byte("n"), Delta: 1, Create: true, TTLMS: wire.TTLDefault},
	} {
		q.ID = uint64(i)
		batch = wire.AppendRequest(batch, &q)
	}
	c.Send(batch)
	<-g.asked
	testenv.Eventually(t, "the reader to wait", func() bool { return h.Budget.Stats().Answers > 0 })
	_ = c.Close()
	h.App().Set("k", []byte("2"))
	close(g.open)
	testenv.Eventually(t, "the connection to end", func() bool { return h.Servers["one at a time"].Stats().Open == 0 })
	onehost.Is(t, "the key", h.Get("k", 0), wire.OK, "2")
	if r := h.Get("n", 0); r.Status != wire.Miss {
		t.Errorf("the counter is %q", r.Value)
	}
}

// TestReadsEndWithTheirConnection checks that no more is read for a client that has closed
// its connection: neither of the batch at hand, nor of what has come behind it.
func TestReadsEndWithTheirConnection(t *testing.T) {
	const requests = 4000
	var gets, mgets []byte
	for i := range requests {
		gets = wire.AppendRequest(gets, &wire.Request{ID: uint64(i), Op: wire.OpGet, Key: []byte("k")})
		mgets = wire.AppendRequest(mgets, &wire.Request{ID: uint64(i), Op: wire.OpMGet, Keys: doors.Keys("k", "k")})
	}
	repeat := func(s string) []byte { return []byte(strings.Repeat(s, requests)) }
	for _, tc := range []struct {
		name string
		kind string
		all  []byte
	}{
		{"GET", "app", gets},
		{"MGET", "app", mgets},
		{"get", "memcached over unix", repeat("get k\r\n")},
		{"get over TCP", "memcached over tcp", repeat("get k\r\n")},
		{"get of many keys", "memcached over unix", repeat("get k k k k\r\n")},
		{"mg", "memcached over unix", repeat("mg k v\r\n")},
		{"gat", "memcached over unix", repeat("gat 0 k\r\n")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := doors.Serve(t, onehost.Config{})
			onehost.Is(t, "SET", h.Set("k", string(make([]byte, longValue))), wire.OK, "")
			var nc net.Conn
			if network, ok := strings.CutPrefix(tc.kind, "memcached over "); ok {
				c := h.TextOver(network)
				c.Ask("mn", "MN") // it is accepted
				nc = c.Conn
			} else {
				nc = h.App().Conn
			}
			before := h.Store.Stats().Hits
			if _, err := nc.Write(tc.all); err != nil {
				t.Fatal(err)
			}
			_ = nc.Close()
			testenv.Eventually(t, "the connection to end", func() bool { return h.Servers[tc.kind].Stats().Open == 0 })
			if n := h.Store.Stats().Hits - before; n > 100 {
				t.Errorf("%d values were read for a client that has gone", n)
			}
		})
	}
}

// TestTextAsksTogether checks that reads that follow each other wait together, up to a command that
// is none, that their answers come in order, and that a client that goes leaves nothing behind.
func TestTextAsksTogether(t *testing.T) {
	for _, stays := range []bool{true, false} {
		g := newGate()
		h := g.behind(t, false)
		h.App().Set("here", []byte("x"))
		c := h.Text()
		c.Send("get a\r\nget here\r\ngets b\r\nmg c v\r\nset d 0 0 1\r\n1\r\nget e\r\n")
		for range 3 {
			<-g.asked
		}
		wait(t, h, 3)
		if len(g.asked) > 0 {
			t.Error("a read has overtaken a write")
		}
		if !stays {
			_ = c.Close()
		}
		close(g.open)
		if stays {
			for _, want := range []string{"END", "VALUE here 0 1", "x", "END", "END", "EN", "STORED", "END"} {
				if got := c.Line(); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		}
		wait(t, h, 0)
	}
}
