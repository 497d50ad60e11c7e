package sidecar

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// stillClock is the clock of a process that stands still for a while. After that the
// process reads a later time.
type stillClock struct {
	kv.Clock
	stood atomic.Int64           // total of all standstills, ns
	at    atomic.Pointer[string] // the function before which it will stand still, once
}

func newStillClock() *stillClock { return &stillClock{Clock: kv.NewSystemClock()} }

const standstill = 2 * time.Second

func (c *stillClock) Read() kv.Moment {
	if at := c.at.Load(); at != nil && calledBy(*at) && c.at.CompareAndSwap(at, nil) {
		c.stood.Add(int64(standstill))
	}
	m := c.Clock.Read()
	m.Boot += time.Duration(c.stood.Load())
	return m
}

func calledBy(function string) bool {
	var pcs [16]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "."+function) {
			return true
		}
		if !more {
			return false
		}
	}
}

// alone returns a sidecar without a socket.
func alone(t *testing.T, cfg Config) *Sidecar {
	t.Helper()
	cfg.NoSocket, cfg.L2Size = true, 8<<20
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.engine.Leases.Close()
		s.engine.Names.Close()
		_ = s.engine.Store.Close()
	})
	return s
}

// lateWrites has every kind of write, of the key "k", which has a value, or of the key
// "none", which has no value.
var lateWrites = []wire.Request{
	{Op: wire.OpSet, Value: []byte("7")},
	{Op: wire.OpSet, Value: make([]byte, 300<<10)}, // over several segments
	{Op: wire.OpSet, Value: []byte("7"), Key: []byte("none"), Mode: wire.ModeAdd},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeReplace},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeCAS},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModeAppend},
	{Op: wire.OpSet, Value: []byte("7"), Mode: wire.ModePrepend, Key: []byte("none"), Options: wire.Create},
	{Op: wire.OpTouch, TTLMS: 1000},
	{Op: wire.OpMetaGet, TTLMS: 1000, Options: wire.Touch},
	{Op: wire.OpIncr, Delta: 1},
	{Op: wire.OpIncr, Delta: 1, Create: true, Initial: 5, Key: []byte("none")},
	{Op: wire.OpFill, Value: []byte("7"), Key: []byte("none")},
}

// A write is not executed if the process stands still past the write's deadline, wherever
// that happens. Here it happens at the last possible place, within the critical section.
// The caller has named the deadline itself, or only a timeout.
func TestOverdueWrites(t *testing.T) {
	for _, named := range []bool{true, false} {
		for _, q := range lateWrites {
			t.Run(fmt.Sprint(q.Op, " mode ", q.Mode, " of ", len(q.Value), " bytes, named=", named), func(t *testing.T) {
				clock := newStillClock()
				s := alone(t, Config{clock: clock})
				ctx := context.Background()
				version, err := s.Set(ctx, "default", "k", []byte("1"), cachesidecar.SetOptions{})
				if err != nil {
					t.Fatal(err)
				}
				if q.Namespace = session.DefaultNamespace; q.Mode == wire.ModeCAS || q.Mode == wire.ModeAppend {
					q.Compare = version
				}
				if q.Key == nil {
					q.Key = []byte("k")
				}
				if q.TTLMS == 0 {
					q.TTLMS = wire.TTLDefault
				}
				if q.Op == wire.OpFill {
					r, _ := s.ask(ctx, &wire.Request{Op: wire.OpLease, Namespace: session.DefaultNamespace, Key: q.Key})
					q.Token = r.Token
				}
				if named {
					q.UntilNS = uint64(clock.Read().Boot + 500*time.Millisecond)
				} else {
					q.TimeoutMS = 500
				}
				at := "OverdueInStore"
				clock.at.Store(&at)
				r, _ := s.ask(ctx, &q)
				if want := "s after its caller had given it up: nothing was done"; r.Status != wire.Unavailable || !strings.Contains(string(r.Message), want) {
					t.Errorf("%s: %s %q, want UNAVAILABLE: … %s", q.Op, r.Status, r.Message, want)
				}
				v, err := s.Get(ctx, "default", "k", cachesidecar.GetOptions{})
				if err != nil || string(v.Value) != "1" || v.Version != version || v.TTL < time.Minute {
					t.Errorf("k is %q, version %d, ttl %v, %v: want what was there", v.Value, v.Version, v.TTL, err)
				}
				if _, err := s.Get(ctx, "default", "none", cachesidecar.GetOptions{}); err == nil {
					t.Error("what was absent is there")
				}
				if n := s.telemetry.Stats().Overdue; n != 1 {
					t.Errorf("%d writes are counted as overdue", n)
				}
			})
		}
	}
}

// Reads, and writes that can only cause misses, are executed however late they are.
func TestOverdueMisses(t *testing.T) {
	s := start(t, Config{})
	c := dial(t, s)
	const past = 1 // ns after the machine's start
	k, v := []byte("k"), []byte("v")
	set := func(until uint64) wire.Reply {
		return c.call(&wire.Request{Op: wire.OpSet, Key: k, Value: v, TTLMS: wire.TTLDefault, UntilNS: until})
	}
	if r := set(past); r.Status != wire.Unavailable || !strings.Contains(string(r.Message), "the SET came ") {
		t.Errorf("SET: %s %s", r.Status, r.Message)
	}
	if r := set(uint64(s.engine.Clock.Read().Boot + time.Minute)); r.Status != wire.OK {
		t.Errorf("SET in time: %s %s", r.Status, r.Message)
	}
	if r := c.call(&wire.Request{Op: wire.OpGet, Key: k}); r.Status != wire.OK {
		t.Errorf("GET: %s", r.Status)
	}
	if r := c.call(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{k}, UntilNS: past}); r.Status != wire.OK || r.Items[0].Status != wire.OK {
		t.Errorf("DELETE: %s", r.Status)
	}
	if r := c.call(&wire.Request{Op: wire.OpGet, Key: k}); r.Status != wire.Miss {
		t.Errorf("GET after DELETE: %s", r.Status)
	}
}

// The origin is not asked for a write whose deadline has passed meanwhile. This is
// checked for each key.
func TestOverdueAtOrigin(t *testing.T) { overdueAtOrigin(t, t.Errorf) }

// standingWriter is an origin whose first write takes longer than its caller waits.
type standingWriter struct {
	clock  *stillClock
	asked  atomic.Int64
	stands bool
}

func (w *standingWriter) Store(context.Context, []byte, loader.Value) error { return w.written() }
func (w *standingWriter) Delete(context.Context, []byte) error              { return w.written() }

func (w *standingWriter) written() error {
	if w.asked.Add(1) == 1 && w.stands {
		w.clock.stood.Add(int64(standstill))
	}
	return nil
}

func overdueAtOrigin(t *testing.T, bad func(format string, args ...any)) {
	for _, op := range []wire.Op{wire.OpSet, wire.OpDelete} {
		clock := newStillClock()
		w := &standingWriter{clock: clock, stands: op == wire.OpDelete}
		s := alone(t, Config{clock: clock, Namespaces: map[string]Namespace{DefaultNamespace: {
			Origin: loader.Custom{Source: newDatabase(always(0)), Writer: w}, WriteThrough: true, Limits: Limits{Concurrency: 1},
		}}})
		q := &wire.Request{Op: op, Namespace: session.DefaultNamespace, TTLMS: wire.TTLDefault, UntilNS: uint64(clock.Read().Boot + time.Second)}
		want := int64(0) // the process stands still before the origin is asked
		if op == wire.OpSet {
			q.Key, q.Value = []byte("k"), []byte("v")
			at := "writeNow"
			clock.at.Store(&at)
		} else { // the process stands still during the first of three keys
			q.Keys = [][]byte{[]byte("a"), []byte("b"), []byte("c")}
			want = 1
		}
		r, _ := s.ask(context.Background(), q)
		if n := w.asked.Load(); n != want {
			bad("%s: the origin was asked %d times, want %d", op, n, want)
		}
		if op == wire.OpSet && (r.Status != wire.Unavailable || !strings.Contains(string(r.Message), "given it up")) {
			bad("%s: %s %s, want UNAVAILABLE", op, r.Status, r.Message)
		}
		for _, r := range r.Items {
			if r.Status == wire.OK || r.Status == wire.Miss {
				want--
			}
		}
		if want < 0 {
			bad("%s: %d more keys are acknowledged than the origin was asked for in time: %+v", op, -want, r.Items)
		}
	}
}
