package hosts

import (
	"context"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
func alone(t *testing.T, clock kv.Clock, cfg Config) *Sidecar {
	t.Helper()
	cfg.NoSocket, cfg.L2Size = true, 8<<20
	s, err := newOn(cfg, testhook.Machine{Clock: clock})
	testenv.Must(t, err)
	t.Cleanup(func() {
		s.engine.LeaseTokens.Close()
		s.engine.Namespaces.Close()
		_ = s.engine.Store.Close()
	})
	return s
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
		s := alone(t, clock, Config{Namespaces: map[string]Namespace{DefaultNamespace: {
			Origin: loader.Custom{Source: newDatabase(always(0)), Writer: w}, WriteThrough: true, Limits: Limits{Concurrency: 1},
		}}})
		q := &wire.Request{Op: op, Namespace: session.DefaultNamespace, TTLMS: wire.TTLDefault, UntilNS: uint64(clock.Read().Boot + time.Second)}
		want := int64(0) // the process stands still before the origin is asked
		if op == wire.OpSet {
			q.Key, q.Value = []byte("k"), []byte("v")
			at := "writeThroughNow"
			clock.at.Store(&at)
		} else { // the process stands still during the first of three keys
			q.Keys = [][]byte{[]byte("a"), []byte("b"), []byte("c")}
			want = 1
		}
		r, _ := s.execute(context.Background(), q)
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

// TestWritesEndWithTheirApp checks that a write is not executed if it still waits when its app
// has closed the connection: another app may have written the key since.
func TestWritesEndWithTheirApp(t *testing.T) { writesEndWithTheirApp(t, t.Errorf) }

// slowSource is an origin without a row, whose answer waits until it is open.
type slowSource struct{ asked, open chan struct{} }

func (s *slowSource) Load(ctx context.Context, _ []byte) (loader.Value, error) {
	close(s.asked)
	select {
	case <-s.open:
	case <-ctx.Done():
	}
	return loader.Value{}, loader.ErrAbsent
}

func writesEndWithTheirApp(t *testing.T, bad func(format string, args ...any)) {
	source := &slowSource{make(chan struct{}), make(chan struct{})}
	s := start(t, Config{Namespaces: map[string]Namespace{DefaultNamespace: {Origin: loader.Custom{Source: source}}}})
	app, another := dial(t, s), dial(t, s)
	app.send(&wire.Request{Op: wire.OpGet, Key: []byte("k")})
	<-source.asked
	app.send(&wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("1"), TTLMS: wire.TTLDefault})
	testenv.Eventually(t, "the SET to wait for the GET", func() bool { return s.engine.Waiting.Load() == 2 })
	q := &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("2"), TTLMS: wire.TTLDefault}
	if r := another.call(q); r.Status != wire.OK {
		t.Fatalf("%s %s", r.Status, r.Message)
	}
	_ = app.nc.Close() // the GET ends with it, and the SET must not come
	testenv.Eventually(t, "the requests to end", func() bool { return s.engine.Waiting.Load() == 0 })
	close(source.open)
	if r := another.call(&wire.Request{Op: wire.OpGet, Key: []byte("k")}); string(r.Value) != "2" {
		bad("the key is %q, want what was written last while the first app was there", r.Value)
	}
}
