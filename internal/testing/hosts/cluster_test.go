package hosts

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// host is a sidecar of a test's cluster.
type host struct {
	*Sidecar
	t    testing.TB
	stop context.CancelFunc
	done chan error
}

// startHost runs a sidecar on loopback that joins other hosts.
func startHost(t testing.TB, name string, join ...string) *host {
	t.Helper()
	return startHostWith(t, Config{}, name, join...)
}

// startHostWith is startHost with more of a configuration. The sidecar has a socket if
// cfg names one. The default timeouts are long enough for a machine that stalls.
func startHostWith(t testing.TB, cfg Config, name string, join ...string) *host {
	t.Helper()
	cfg.Node, cfg.NoSocket, cfg.L2Size, cfg.L1Size, cfg.Bind, cfg.Join = name, cfg.Socket == "", 16<<20, 1<<20, "127.0.0.1:0", join
	cfg.MaxStaleness, cfg.RequestTimeout = cmp.Or(cfg.MaxStaleness, 5*time.Second), cmp.Or(cfg.RequestTimeout, time.Minute)
	if os.Getenv("CLUSTER_LOG") != "" {
		cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug})).With("on", name)
	}
	s, err := newOn(cfg, testhook.Machine{ReadPatience: time.Minute})
	testenv.Must(t, err)
	return run(t, s)
}

// run runs a sidecar until the test ends.
func run(t testing.TB, s *Sidecar) *host {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	h := &host{Sidecar: s, t: t, stop: stop, done: make(chan error, 1)}
	go func() { h.done <- s.Run(ctx) }() // ends with stop, which the cleanup calls
	t.Cleanup(h.leave)
	select {
	case <-s.Ready():
	case err := <-h.done:
		h.done <- err
		t.Fatal(err)
	}
	return h
}

func (h *host) leave() {
	h.stop()
	if err := <-h.done; err != nil {
		h.t.Errorf("%s: %v", h.cfg.Node, err)
	}
	h.done <- nil
}

// setter is a sidecar, or what has one.
type setter interface {
	Set(ctx context.Context, namespace, key string, value []byte, o cachesidecar.SetOptions) (version uint64, err error)
}

// mustSet sets a key of the default namespace, or ends the test.
func mustSet(t testing.TB, s setter, key string, value []byte) {
	t.Helper()
	_, err := s.Set(t.Context(), DefaultNamespace, key, value, cachesidecar.SetOptions{})
	testenv.Must(t, err)
}

// owns reports whether a host owns a key.
func owns(s *Sidecar, namespace, key string) bool {
	return s.engine.Node.OwnershipEpoch(s.engine.Namespaces.Hash(b(namespace), b(key)).Partition()) != 0
}

// keysIn returns keys of a namespace that a host owns, or does not own.
func keysIn(s *Sidecar, namespace, prefix string, owned bool, n int) (keys []string) {
	for i := 0; len(keys) < n; i++ {
		if key := fmt.Sprint(prefix, i); owns(s, namespace, key) == owned {
			keys = append(keys, key)
		}
	}
	return keys
}

// twoHosts runs two hosts of one cluster. If cfg names a socket, each has one.
func twoHosts(t testing.TB, cfg Config) (a, b *host) {
	t.Helper()
	socket := cfg.Socket
	at := func(name string) Config {
		if socket != "" {
			cfg.Socket = socket + name
		}
		return cfg
	}
	a = startHostWith(t, at("a"), "a")
	b = startHostWith(t, at("b"), "b", a.engine.Node.GossipAddress())
	settled(t, a, b)
	return a, b
}

// settled waits until the hosts own all partitions and agree on the members.
func settled(t testing.TB, hosts ...*host) {
	t.Helper()
	testenv.Succeeds(t, "the hosts own all partitions and agree", func() error {
		held, agree, words := 0, true, ""
		for _, h := range hosts {
			st, members := h.engine.Node.Stats(), h.engine.Node.Members()
			held += st.Owned
			agree = agree && len(h.engine.Node.View().Table.Members()) == len(hosts)
			words += fmt.Sprintf("\n%s: %+v, %+v", h.cfg.Node, st, members)
		}
		if agree && held == kv.Partitions {
			return nil
		}
		return fmt.Errorf("%d partitions are held%s", held, words)
	})
}

// TestLeaveKeepsEntries checks that a host that leaves hands over the entries it owns.
func TestLeaveKeepsEntries(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	a, b := twoHosts(t, Config{})
	ctx := t.Context()
	const n = 5000
	for i := range n {
		mustSet(t, a, fmt.Sprintf("key%d", i), fmt.Appendf(nil, "value%d", i))
	}
	c := startHost(t, "c", a.engine.Node.GossipAddress())
	settled(t, a, b, c)
	count := func(h *host, what string) {
		t.Helper()
		hits := 0
		for i := range n {
			if v, err := h.Get(ctx, "default", fmt.Sprintf("key%d", i), cachesidecar.GetOptions{}); err == nil {
				if string(v.Value) != fmt.Sprint("value", i) {
					t.Fatalf("key%d is %q", i, v.Value)
				}
				hits++
			}
		}
		if hits < n*999/1000 {
			t.Errorf("%s: %d of %d entries are there", what, hits, n)
		}
		t.Logf("%s: %d of %d; %+v %+v", what, hits, n, h.telemetry.ClusterState().Handoff, h.engine.Node.Stats())
	}
	count(c, "after a join")
	b.leave()
	settled(t, a, c)
	count(c, "after a leave")
	c.leave()
	settled(t, a)
	count(a, "after another leave")
}

// TestVirtualLateGossipKeepsEntries checks that an event which gossip delivers after the end of
// its process drops no entry, while the same event in a log is the other side's of a split.
func TestVirtualLateGossipKeepsEntries(t *testing.T) {
	withNodes(t, 2, newDatabase(always(time.Millisecond)), Namespace{}, func(w *world) {
		v := w.ownerOf("k")
		v.set("k", "value")
		e := v.s.engine
		events := []invalidation.Event{{
			Kind: invalidation.Changed, Hash: e.Namespaces.Hash(session.DefaultNamespace, []byte("k")), Version: kv.Version(v.get("k", 0).Version),
		}}
		e.Delegate.Relayed(events)
		is(t, "after gossip", v.get("k", wire.NoLoad), wire.OK, "value")
		e.Delegate.Apply(w.other("k").s.engine.Node.Self(), 1<<40, events)
		is(t, "after a log", v.get("k", wire.NoLoad), wire.Miss, "")
	})
}

// copyHits returns a host, a key of another host's entry that it has a copy of, and a
// function that serves a GET of the key and returns the answer.
func copyHits(tb testing.TB) (a *host, key []byte, get func() []byte) {
	tb.Helper()
	// A lease may lapse on a busy machine.
	a, b := twoHosts(tb, Config{MaxStaleness: 10 * time.Second})
	key = []byte(b.keyOf(0))
	mustSet(tb, b, string(key), make([]byte, 100))
	h := a.sessions.Of(byRoot(a.engine), nil)
	conn := &server.Conn{Out: make([]byte, 0, 64<<10)}
	frames := [][]byte{wire.AppendRequest(nil, &wire.Request{ID: 7, Op: wire.OpGet, Key: key})[wire.LengthSize:]}
	get = func() []byte {
		conn.Out = conn.Out[:0]
		h.Batch()
		testenv.Must(tb, h.Serve(conn, frames))
		h.Served()
		return conn.Out[wire.LengthSize:]
	}
	var r wire.Reply
	testenv.Eventually(tb, "the copy is there", func() bool {
		if _, err := a.Get(tb.Context(), "default", string(key), cachesidecar.GetOptions{}); err != nil { // makes the copy
			tb.Fatal(err)
		}
		a.engine.L1.Wait()
		if err := wire.DecodeReply(wire.OpGet, get(), &r); err != nil || r.Status != wire.OK {
			tb.Fatalf("%+v, %v", r, err)
		}
		return r.Source == wire.SourceL1
	})
	return a, key, get
}

// TestCopyHitAllocatesNothing checks that a hit in the copies allocates nothing, like a
// hit in this host's own entries.
func TestCopyHitAllocatesNothing(t *testing.T) {
	a, _, get := copyHits(t)
	before := a.engine.Namespaces.Stats()[0].Hits
	testenv.Allocates(t, "a hit", 0, 200, func() { get() })
	if hits := a.engine.Namespaces.Stats()[0].Hits - before; hits < 200 {
		t.Errorf("%d hits", hits)
	}
}

// BenchmarkCopyHit measures a hit in the copies: the whole request, and the lookup of the
// copy with and without the checks.
func BenchmarkCopyHit(b *testing.B) {
	a, key, get := copyHits(b)
	b.Run("all", func(b *testing.B) {
		for b.Loop() {
			get()
		}
	})
	k := a.engine.Namespaces.Lookup(session.DefaultNamespace).Key(key)
	owner := a.engine.Node.View().AssignedOwner(k.Hash.Partition())
	b.Run("checked", func(b *testing.B) {
		now := a.engine.Clock.Read()
		for b.Loop() {
			if a.engine.Remote.Get(k, owner, now) == nil {
				now = a.engine.Clock.Read()
			}
		}
	})
	b.Run("unchecked", func(b *testing.B) {
		for b.Loop() {
			if _, ok := a.engine.L1.Get(k); !ok {
				b.Fatal("the copy is gone")
			}
		}
	})
}

// TestWaitingIsBounded checks that there is a bound on the requests that wait for other
// hosts.
func TestWaitingIsBounded(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	a, b := twoHosts(t, Config{})
	key := []byte(b.keyOf(0))
	a.engine.Budget.Open("others", "").AcquireAnyway(quota.Waiting, session.MaxWaiting)
	h := a.sessions.Of(byRoot(a.engine), a.engine.Budget.Open("uid 1", ""))
	conn := &server.Conn{Out: make([]byte, 0, 64<<10)}
	h.Batch()
	testenv.Must(t, h.Serve(conn, [][]byte{wire.AppendRequest(nil, &wire.Request{ID: 7, Op: wire.OpGet, Key: key})[wire.LengthSize:]}))
	h.Served()
	var r wire.Reply
	if err := wire.DecodeReply(wire.OpGet, conn.Out[wire.LengthSize:], &r); err != nil || r.Status != wire.Busy {
		t.Errorf("one more than %d is answered with %s %q, %v", session.MaxWaiting, r.Status, r.Message, err)
	}
	if w := a.engine.Budget.Taken(quota.Waiting); w != session.MaxWaiting {
		t.Errorf("%d are counted after it, want %d", w, session.MaxWaiting)
	}
}
