package peer

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// setClock is a clock that a test sets.
type setClock struct{ kv.Moment }

func (c *setClock) Read() kv.Moment { return c.Moment }

// TestAhead checks that versions are accepted up to four skews and one second ahead of
// the wall clock. A version that was accepted stays acceptable when the wall clock is
// set back.
func TestAhead(t *testing.T) {
	const start = 1_700_000_000_000
	clock := &setClock{kv.Moment{Wall: start, Boot: time.Hour}}
	id := identity("b", 2)
	id.Clock = clock
	at := func(ms int64) error { return id.Ahead("a", uint64(kv.FirstVersionAt(start+ms))) }
	for _, tc := range []struct {
		wall, version int64
		in            bool
	}{
		{0, 0, true}, {0, -3_600_000, true}, {0, 3000, true}, {0, 3001, false}, {0, 3_600_000, false}, {0, 3000, true},
		{1000, 4000, true}, {1000, 4001, false},
		{-3_600_000, 4000, true}, {-3_600_000, 4001, false}, // set back
		{10_000, 13_000, true},
	} {
		clock.Wall = start + tc.wall
		if err := at(tc.version); (err == nil) != tc.in {
			t.Errorf("a version at %d, with the wall clock at %d: %v", tc.version, tc.wall, err)
		}
	}
	for _, v := range []uint64{math.MaxUint64, math.MaxUint64 - 1<<33, 1 << 63} {
		err := id.Ahead("a", v)
		var ahead *AheadError
		if !errors.As(err, &ahead) || ahead.Ahead <= 0 {
			t.Errorf("version %d: %v", v, err)
		}
		for _, part := range []string{"clock of a ", "ahead", "max_clock_skew of 500ms", "start it anew"} {
			if err != nil && !strings.Contains(err.Error(), part) {
				t.Errorf("%q lacks %q", err, part)
			}
		}
	}
}

// TestHopsAreNotAhead has a chain of hosts in which each clock is one skew off the
// next. The hosts pass their clocks on, flushes included, and no greeting is refused.
func TestHopsAreNotAhead(t *testing.T) {
	const start = 1_700_000_000_000
	var ids []*Identity
	for i := range int64(3) {
		id := identity(string(rune('a'+i)), int(i)+1)
		id.Clock = &setClock{kv.Moment{Wall: start - i*id.MaxSkew.Milliseconds(), Boot: time.Hour}}
		ids = append(ids, id)
	}
	// A flush of the host that is furthest ahead lies two skews above its clock.
	ids[0].Versions.Observe(kv.FirstVersionAt(start + 2*ids[0].MaxSkew.Milliseconds()))
	for range 5000 {
		for i, id := range ids[1:] {
			h := ids[i].hello(Poll)
			testenv.Must(t, id.check(&h, h.WallMS, id.Clock.Read().Wall))
			id.merge(&h)
		}
	}
}

// TestGreetingAhead checks that a greeting, or the answer to it, is refused if its
// clock or flush is too far ahead. Nothing in it is merged.
func TestGreetingAhead(t *testing.T) {
	hour := func() kv.Version { return kv.FirstVersionAt(testenv.Date().Add(time.Hour).UnixMilli()) }
	for name, spoil := range map[string]func(*Identity){
		"clock": func(id *Identity) { id.Versions.Observe(hour()) },
		"flush": func(id *Identity) {
			id.Floors = func() []wire.Floor { return []wire.Floor{{Namespace: "x", Version: uint64(hour())}} }
		},
	} {
		for _, caller := range []bool{true, false} {
			a, b := identity("a", 1), identity("b", 2)
			bad, good := a, b
			if !caller {
				bad, good = b, a
			}
			spoil(bad)
			learned := 0
			good.Learn = func(f []wire.Floor) { learned += len(f) }
			s := serve(t, b)
			p := newPool(t, a)
			p.Set(b.Self, s.address)
			_, err := get(t, p, b.Self, Call)
			if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the version clock of "+string(bad.Self.Node)) {
				t.Errorf("%s, of the caller %v: %v", name, caller, err)
			}
			if learned != 0 || good.Versions.Next(0) > kv.FirstVersionAt(testenv.Date().Add(time.Minute).UnixMilli()) {
				t.Errorf("%s, of the caller %v: %d flushes and %v are merged", name, caller, learned, good.Versions.Next(0))
			}
		}
	}
}

// TestAnswerAhead checks that an answer to a request is refused too.
func TestAnswerAhead(t *testing.T) {
	b := identity("b", 2)
	s := serveWith(t, b, func(q *wire.Request) *wire.Reply {
		return &wire.Reply{ID: q.ID, Value: []byte("v"), Version: math.MaxUint64}
	})
	var told error
	greeted := func(_ kv.NodeID, _ kv.Process, err error) { told = err }
	p := patientPool(PoolConfig{Identity: identity("a", 1), Greeted: greeted})
	defer p.Close()
	p.Set(b.Self, s.address)
	if _, err := get(t, p, b.Self, Call); !errors.Is(err, ErrRefused) || !errors.Is(told, ErrRefused) || NotExecuted(err) {
		t.Errorf("%v; Greeted was told %v", err, told)
	}
}

// answers is an echo whose answers, but to PING, are made by reply. It may wait.
type answers struct {
	echo
	reply func(*wire.Request) *wire.Reply
}

func (e *answers) Serve(c *server.Conn, frames [][]byte) error {
	for _, f := range frames {
		var q wire.Request
		if err := wire.DecodeRequest(bytes.Clone(f), &q); err != nil {
			return err
		}
		if q.Op == wire.OpPing {
			c.Out = wire.AppendReply(c.Out, q.Op, &wire.Reply{ID: q.ID})
			continue
		}
		c.Go(func() []byte { return wire.AppendReply(nil, q.Op, e.reply(&q)) })
	}
	return nil
}
