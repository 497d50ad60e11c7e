package session_test

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// longValue is a value whose answer to another host comes after the short ones.
const longValue = 500_000

// TestLongAnswersToHosts checks that short reads of another host are answered before the
// long ones that it has asked for earlier.
func TestLongAnswersToHosts(t *testing.T) {
	const longs = 30
	h := doors.Serve(t, onehost.Config{})
	h.Set("long", string(make([]byte, longValue)))
	h.Set("short", "v")
	c := h.Peer()
	var batch []byte
	for i := range uint64(longs + 1) {
		q := &wire.Request{ID: i, Op: wire.OpGet, Key: []byte("long"), Options: wire.Attest}
		if i == longs {
			q.Key = []byte("short")
		}
		batch = wire.AppendRequest(batch, q)
	}
	c.Send(batch)
	// The first long answer waits in the socket until it is read.
	testenv.Eventually(t, "the short answer is made", func() bool { return h.Counts.Served.Load() >= 2 })
	for i := range longs + 1 {
		r := c.Receive(wire.OpGet)
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
	h := doors.Serve(t, onehost.Config{})
	for _, key := range []string{"long", "gone"} {
		h.Set(key, string(make([]byte, longValue)))
	}
	c := h.Peer()
	long := wire.Request{Op: wire.OpGet, Key: []byte("long")}
	for _, q := range []wire.Request{long, long, doors.LeaseOf("gone", 20*time.Second), long} {
		c.Begin(q)
	}
	testenv.Eventually(t, "all to wait", func() bool { return h.Waiting.Load() >= 2 && h.Counts.Served.Load() == 1 })
	h.Delete("gone", 0)
	token := h.Lease("gone", 0).Token
	for range 3 {
		frame := c.Frame()
		if id, _ := wire.PeekID(frame); id == 3 {
			t.Fatalf("LEASE: %s before what is behind it", c.Decode(wire.OpLease, frame).Status)
		}
	}
	onehost.Is(t, "FILL", h.Fill("gone", token, "new"), wire.OK, "")
	onehost.Is(t, "the LEASE", c.Receive(wire.OpLease), wire.OK, "new")
}

// TestLongWithoutReader checks that long answers are not made after their connection has
// ended.
func TestLongWithoutReader(t *testing.T) {
	const longs = 200
	h := doors.Serve(t, onehost.Config{})
	h.Set("long", string(make([]byte, longValue)))
	c := h.Peer()
	for range longs {
		c.Begin(wire.Request{Op: wire.OpGet, Key: []byte("long")})
	}
	testenv.Eventually(t, "all to wait", func() bool { return h.Waiting.Load() >= longs-2 })
	before := h.Store.Stats().Hits
	_ = c.Close()
	testenv.Eventually(t, "none to wait", func() bool { return h.Waiting.Load() == 0 })
	if n := h.Store.Stats().Hits - before; n > 5 {
		t.Errorf("%d values were copied for a host that has gone", n)
	}
}

// TestReadEndsWithItsConnection checks that a read that waits for a load ends if nothing
// can be written to its connection any more.
func TestReadEndsWithItsConnection(t *testing.T) {
	ends := map[string]chan struct{}{"late": make(chan struct{}), "soon": make(chan struct{})}
	source := loader.SourceFunc(func(_ context.Context, key []byte) (loader.Value, error) {
		<-ends[string(key)]
		return loader.Value{Bytes: key}, nil
	})
	h := doors.Serve(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) {
		s.Origin = loader.Custom{Source: source}
	})})
	defer close(ends["late"])
	c := h.App()
	for _, key := range []string{"late", "soon"} {
		c.Begin(wire.Request{Op: wire.OpGet, Key: []byte(key), TimeoutMS: 600_000})
	}
	testenv.Eventually(t, "both to wait", func() bool { return h.Waiting.Load() == 2 })
	_ = c.Close()
	close(ends["soon"]) // its answer cannot be written
	testenv.Eventually(t, "both to end", func() bool { return h.Waiting.Load() == 0 })
}

// TestMGetThatMoves checks that a read before an MGET, in the same batch, counts once if the MGET has a
// key that must be loaded.
func TestMGetThatMoves(t *testing.T) {
	g := newGate()
	close(g.open)
	h := g.behind(t, false)
	c := h.App()
	c.Set("here", []byte("v"))
	c.Send(append(
		wire.AppendRequest(nil, &wire.Request{ID: 8, Op: wire.OpGet, Key: []byte("here")}),
		wire.AppendRequest(nil, &wire.Request{ID: 9, Op: wire.OpMGet, Keys: doors.Keys("here", "there")})...))
	c.Frame()
	c.Frame()
	var reads int64
	for o := range namespaces.Outcomes {
		reads += h.Namespaces.Lookup(session.DefaultNamespace).Counts[wire.OpGet][o].Load()
	}
	if reads != 1 {
		t.Errorf("one GET counts %d times", reads)
	}
}

// TestFramesThatDoNotCome checks that a frame that is announced but does not arrive takes
// nothing from other clients.
func TestFramesThatDoNotCome(t *testing.T) {
	cfg := onehost.Config{L2Size: 256 << 20, MaxValue: 8 << 20}
	doors.Virtually(t, cfg, func(t *testing.T, h *doors.Host) {
		for range 16 {
			h.App().Send([]byte{0, 0x80, 0, 0, 0x96}) // 8 MiB; one byte arrives
		}
		began := time.Now()
		h.App().Set("k", make([]byte, 8<<20))
		if took := time.Since(began); took > 15*time.Second {
			t.Errorf("a SET took %v: it has waited until the frames timed out", took)
		}
	})
}

// TestAPauseAlone: a host that can never have another member keeps its entries while its process does not
// run, for however long: no other can have owned them.
func TestAPauseAlone(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		c := h.App()
		c.Set("k", []byte("v"))
		time.Sleep(10 * time.Minute) // nothing looks at the clock meanwhile, as in a process that is stopped
		onehost.Is(t, "GET", c.Get("k"), wire.OK, "v")
		if n := h.Node.Stats(); n.Pauses != 0 || n.Owned == 0 {
			t.Errorf("%d pauses, %d partitions", n.Pauses, n.Owned)
		}
	})
}
