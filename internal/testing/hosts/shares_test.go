package hosts

import (
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A read of an entry of another host is answered, however many names this host has. The
// same holds for MGET.
func TestReadBeyondMaxNamespaces(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, o := twoHosts(t, Config{MaxNamespaces: 2})
	at := func(h *host, q wire.Request) wire.Reply {
		q.TimeoutMS, q.TTLMS, q.App = 10_000, wire.TTLDefault, true
		bo := namespaces.Pins{Table: h.engine.Namespaces}
		defer bo.Release()
		return h.engine.Serve(t.Context(), &q, &bo, h.engine.Deadlines.Of(&q, h.engine.Clock.Read()))
	}
	keyIn := func(h *host, ns string) []byte { return b(keysIn(h.Sidecar, ns, "k", true, 1)[0]) }
	for i := 0; ; i++ {
		ns := "n" + strings.Repeat("x", i)
		if r := at(a, wire.Request{Op: wire.OpSet, Namespace: b(ns), Key: keyIn(a, ns), Value: b("1")}); r.Status != wire.OK {
			break
		}
	}
	k, here := keyIn(o, "theirs"), keyIn(a, "theirs")
	if r := at(o, wire.Request{Op: wire.OpSet, Namespace: b("theirs"), Key: k, Value: b("1")}); r.Status != wire.OK {
		t.Fatalf("SET: %s %s", r.Status, r.Message)
	}
	if r := at(a, wire.Request{Op: wire.OpGet, Namespace: b("theirs"), Key: k}); r.Status != wire.OK || string(r.Value) != "1" || r.Source != wire.SourcePeer {
		t.Errorf("GET through a: %s %q %s", r.Status, r.Value, r.Message)
	}
	if r := at(a, wire.Request{Op: wire.OpGet, Namespace: b("theirs"), Key: here}); r.Status != wire.Miss {
		t.Errorf("GET of a's own part: %s %s", r.Status, r.Message)
	}
	r := at(a, wire.Request{Op: wire.OpMGet, Namespace: b("theirs"), Keys: [][]byte{k, here}})
	if len(r.Items) != 2 || r.Items[0].Status != wire.OK || string(r.Items[0].Value) != "1" || r.Items[1].Status != wire.Miss {
		t.Errorf("MGET through a: %+v", r)
	}
	if r := at(a, wire.Request{Op: wire.OpGet, Namespace: b("No Name"), Key: k}); r.Status != wire.BadRequest {
		t.Errorf("a name that is none: %s", r.Status)
	}
}

// Answers of another host that an app does not read are counted and bounded, even if they
// are longer than the answers before them. Another app's reads of that host continue.
func TestAnswersOfOthersUnread(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	const size = 500_000
	cfg := Config{BufferSize: 16 << 20}
	cfg.Socket = filepath.Join(t.TempDir(), "s")
	a, o := twoHosts(t, cfg)
	key, none := b(o.keyOf(0)), b(o.keyOf(1))
	mustSet(t, o, string(key), make([]byte, size))
	slow, other := dial(t, a.Sidecar), dial(t, a.Sidecar)
	for range 150 {
		if r := slow.call(&wire.Request{Op: wire.OpGet, Key: none, Options: wire.Fresh}); r.Status != wire.Miss {
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	const n = 100
	var all []byte // sent at once: no more requests are read while answers wait
	for i := range uint64(n) {
		all = wire.AppendRequest(all, &wire.Request{ID: i + 10, Op: wire.OpGet, Key: key, Options: wire.Fresh, TimeoutMS: 60_000})
	}
	if _, err := slow.nc.Write(all); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, "its share to be full", func() bool { return a.server.Stats().Buffers.Refused > 0 })
	if st := a.server.Stats(); st.Buffers.Answers > int64(cfg.BufferSize)/4 || st.BufferBytes > int64(cfg.BufferSize) || st.Buffers.Most == "" {
		t.Errorf("%+v", st.Buffers)
	}
	if r := other.call(&wire.Request{Op: wire.OpGet, Key: key, Options: wire.Fresh, TimeoutMS: 60_000}); r.Status != wire.OK || len(r.Value) != size {
		t.Errorf("another app: %s %s", r.Status, r.Message)
	}
	var busy atomic.Int64
	for range n {
		r := slow.receive(wire.OpGet)
		switch {
		case r.Status == wire.Busy:
			busy.Add(1)
		case r.Status != wire.OK || len(r.Value) != size:
			t.Fatalf("%s %s", r.Status, r.Message)
		}
	}
	if busy.Load() == 0 || busy.Load() == n {
		t.Errorf("%d of %d are BUSY", busy.Load(), n)
	}
	testenv.Eventually(t, "all to come back", func() bool {
		st := a.engine.Budget.Stats()
		return st.Total() == st.Sockets // without a loop a socket's room stays as long as the connection
	})
}
