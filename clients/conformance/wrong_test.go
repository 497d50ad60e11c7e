package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// wrongly is a connection of a client that makes mistakes.
type wrongly struct {
	net.Conn
	t    *testing.T
	path string
	s    *scripted
}

// connect connects and greets.
func (w *wrongly) connect() *wrongly {
	w.t.Helper()
	nc, err := net.Dial("unix", w.path)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { nc.Close() })
	n := &wrongly{nc, w.t, w.path, w.s}
	n.send(wire.Request{Op: wire.OpHello, Hello: wire.Hello{Versions: []int{1}, Namespace: "users"}})
	n.answer()
	return n
}

func (w *wrongly) send(all ...wire.Request) {
	w.t.Helper()
	var b []byte
	for _, q := range all {
		if q.Op != wire.OpHello && q.Op != wire.OpLeaving && q.TimeoutMS == 0 {
			q.TimeoutMS = 100
		}
		b = wire.AppendRequest(b, &q)
	}
	if _, err := w.Write(b); err != nil {
		w.t.Log(err) // the server may have had enough
	}
}

// answer reads an answer and returns its id; 0 if the connection has ended.
func (w *wrongly) answer() uint64 {
	head := make([]byte, wire.LengthSize)
	if _, err := io.ReadFull(w, head); err != nil {
		return 0
	}
	frame := make([]byte, wire.FrameLength(head))
	if _, err := io.ReadFull(w, frame); err != nil {
		return 0
	}
	id, _ := wire.PeekID(frame)
	return id
}

func q(op wire.Op, key string) wire.Request {
	r := wire.Request{ID: 5, Op: op, Key: []byte(key), TTLMS: wire.TTLDefault}
	if op == wire.OpSet || op == wire.OpFill {
		r.Value, r.Flags = []byte("v"), 16
	}
	return r
}

func with(r wire.Request, f func(*wire.Request)) wire.Request { f(&r); return r }

// mistakes are what clients do wrong, with the conversation that finds it and what is said.
var mistakes = []struct {
	name, in, said string
	do             func(w *wrongly)
}{
	{"does nothing", "get: a hit", "no connection came", func(*wrongly) {}},
	{"greets and ends", "get: a hit", "the connection has ended", func(w *wrongly) { w.connect().Close() }},
	{"sends no HELLO", "get: a hit", "the first request is no HELLO", func(w *wrongly) {
		nc, err := net.Dial("unix", w.path)
		if err != nil {
			w.t.Fatal(err)
		}
		(&wrongly{nc, w.t, w.path, w.s}).send(q(wire.OpGet, "user:42"))
		nc.Close()
	}},
	{"asks for another key", "get: a hit", `a key is "user:43", want "user:42"`, func(w *wrongly) {
		w.connect().send(q(wire.OpGet, "user:43"))
	}},
	{"asks in another namespace", "get: a hit", `the namespace is "other"`, func(w *wrongly) {
		w.connect().send(with(q(wire.OpGet, "user:42"), func(r *wire.Request) { r.Namespace = []byte("other") }))
	}},
	{"asks twice", "get: a hit", "the client sends more", func(w *wrongly) {
		w = w.connect()
		w.send(q(wire.OpGet, "user:42"), q(wire.OpGet, "user:42"))
		w.answer()
		w.answer()
	}},
	{"sends again what was taken whole", "a sidecar that stops reading within many writes", "a second time",
		func(w *wrongly) {
			set := func(i int) wire.Request {
				return with(q(wire.OpSet, fmt.Sprint("k", i)), func(r *wire.Request) { r.Value = make([]byte, 40000) })
			}
			first := w.connect()
			first.send(set(0), set(1), set(2), set(3)) // the server reads two and a half
			for first.answer() != 0 {
			}
			w.connect().send(set(2)) // the system took it whole
		}},
	{"sends an unwanted option", "get: a hit", "options are 0x1", func(w *wrongly) {
		w.connect().send(with(q(wire.OpGet, "user:42"), func(r *wire.Request) { r.Options = wire.Fresh }))
	}},
	{"sends what is no request", "get: a hit", "the sidecar would refuse a request", func(w *wrongly) {
		w = w.connect()
		_, _ = w.Write([]byte{0, 0, 0, 1, 5})
		w.answer()
	}},
	{"sends LEAVING twice", "get: a hit", "a second LEAVING", func(w *wrongly) {
		w = w.connect()
		w.send(wire.Request{ID: 1, Op: wire.OpLeaving}, wire.Request{ID: 2, Op: wire.OpLeaving})
		w.answer()
	}},
	{"sends the timeout of all calls", "the timeout is sent along", "timeout_ms is 15000, want 1 to 7000", func(w *wrongly) {
		w = w.connect()
		long := func(r *wire.Request) { r.TimeoutMS = 15000 }
		w.send(with(q(wire.OpGet, "k"), long))
		w.answer()
		w.send(with(q(wire.OpGet, "k"), long))
	}},
	{"sends until_ns by another clock", "set: what is sent", "though HELLO's answer has no boot clock", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Value, r.UntilNS = []byte("Ada"), 5 }))
	}},
	{"sends until_ns too late", "the boot clock", "that is more than timeout_ms later", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.UntilNS = 1 << 62 }))
	}},
	{"stores without a mark", "set: what is sent", "flags are 0, want 16", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Value, r.Flags = []byte("Ada"), 0 }))
	}},
	{"stores with a TTL", "set: what is sent", "ttl_ms is 0, want -1", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Value, r.TTLMS = []byte("Ada"), 0 }))
	}},
	{"rounds versions", "cas: a version of 64 bits", "compare is 7148934231982080000", func(w *wrongly) {
		w = w.connect()
		w.send(q(wire.OpGet, "k"))
		w.answer()
		w.send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Mode, r.Compare = wire.ModeCAS, 7148934231982080000 }))
	}},
	{"sends a value above the limit", "set: above max_value", "the client sends SET", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Value = make([]byte, 1001) }))
	}},
	{"repeats a SET", "cut before an answer: set", "the client sends SET", func(w *wrongly) {
		for range 2 {
			c := w.connect()
			c.send(q(wire.OpSet, "k"))
			c.answer()
		}
	}},
	{"repeats a read for ever", "cut twice: a read", "the client sends more", func(w *wrongly) {
		for range 3 {
			c := w.connect()
			c.send(q(wire.OpGet, "k"))
			c.answer()
		}
	}},
	{"does not repeat a read", "cut before an answer: a read", "the client has opened 1 connections", func(w *wrongly) {
		c := w.connect()
		c.send(q(wire.OpGet, "k"))
		c.answer()
	}},
	{"ignores LEAVING", "LEAVING: nothing in flight", "want {\"closed\":true}: the client sends more", func(w *wrongly) {
		w = w.connect()
		w.send(with(q(wire.OpLeaving, ""), func(r *wire.Request) { r.ID = 1 }), wire.Request{ID: 2, Op: wire.OpPing})
		w.answer()
		w.answer()
		w.send(q(wire.OpGet, "k"))
	}},
	{"fills over another connection", "LEAVING: a token", "the client sends more", func(w *wrongly) {
		c := w.connect()
		c.send(wire.Request{ID: 1, Op: wire.OpLeaving}, wire.Request{ID: 2, Op: wire.OpPing})
		c.answer()
		c.send(q(wire.OpLease, "k"))
		c.answer()
		c.answer()
		w.connect().send(with(q(wire.OpFill, "k"), func(r *wire.Request) { r.Token = []byte("token") }))
	}},
	{"keeps a token", "get_or_set: the loader fails", "the connection has ended", func(w *wrongly) {
		w = w.connect()
		w.send(q(wire.OpLease, "k"))
		w.answer()
	}},
	{"stores a degraded load", "get_or_set: degraded", "the client sends SET", func(w *wrongly) {
		w = w.connect()
		w.send(q(wire.OpLease, "k"))
		w.answer()
		w.send(q(wire.OpSet, "k"))
	}},
	{"turns the order of one key", "one key keeps its order", "the value", func(w *wrongly) {
		w.connect().send(with(q(wire.OpSet, "k"), func(r *wire.Request) { r.Value = []byte("2") }))
	}},
	{"goes on after garbage", "set: garbage", "the client sends more", func(w *wrongly) {
		w = w.connect()
		w.send(q(wire.OpSet, "k"))
		w.answer()
		w.send(q(wire.OpGet, "k2"))
	}},
	{"makes two writes", "one write", "came with a later write", func(w *wrongly) {
		w = w.connect()
		w.send(wire.Request{ID: 1, Op: wire.OpPing})
		w.answer()
		w.send(q(wire.OpGet, "k0"))
		_ = w.s.until(testenv.Context(w.t), func() bool { return w.s.came >= 3 }) // HELLO, PING, and this one by itself
		w.send(q(wire.OpGet, "k1"))
	}},
}

// TestMistakes checks that the servers find each mistake.
func TestMistakes(t *testing.T) {
	all, err := load("")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mistakes {
		t.Run(m.name, func(t *testing.T) {
			at := slices.IndexFunc(all, func(c *conversation) bool { return c.Name == m.in })
			if at < 0 {
				t.Fatalf("there is no conversation %q", m.in)
			}
			s, err := newScripted(all[at], filepath.Join(t.TempDir(), "s"), true)
			if err != nil {
				t.Fatal(err)
			}
			t.Run("", func(t *testing.T) { m.do(&wrongly{nil, t, s.path, s}) }) // its end closes the connections
			wrong := strings.Join(s.finish(), "\n")
			if !strings.Contains(wrong, m.said) {
				t.Errorf("found %q, want %q", wrong, m.said)
			}
		})
	}
}
