package memcached_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/memcached"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/doors"
	"github.com/cachesidecar/cachesidecar/internal/testing/memcachedtest"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// flushing is a host that fails its next flushes, each after a second.
type flushing struct {
	session.Host
	on          *doors.Host
	fails, asks atomic.Int64
}

func (f *flushing) Enter() (leave func(), ok bool) { return func() {}, true }

func (f *flushing) Serve(
	ctx context.Context, q *wire.Request, b *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	if f.asks.Add(1); f.fails.Add(-1) >= 0 {
		time.Sleep(time.Second)
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "a host does not answer"))
	}
	return f.on.ServeNow(ctx, q, b, deadline)
}

// TestTextFlushLater gives flush_all a delay. It comes then, and again a second after it has failed; the
// next flush_all, and Close, take it back.
func TestTextFlushLater(t *testing.T) {
	doors.Virtually(t, onehost.Config{}, func(t *testing.T, h *doors.Host) {
		host := &flushing{on: h}
		door := &memcached.Endpoint{
			Namespace: session.DefaultNamespace, MaxValue: 100,
			Sessions: session.New(session.Config{Engine: h.Engine, Host: host, Limits: h.Limits}),
		}
		l := h.Limits()
		l.Framing, l.MaxFrame = door, door.Longest()
		c := memcachedtest.New(t, h.Dial("flushing", "unix", l, door.Handler))
		after := func(d time.Duration, there bool, asks int64) {
			t.Helper()
			time.Sleep(d)
			if n := host.asks.Load(); n != asks || (h.Get("k", 0).Status == wire.OK) != there {
				t.Errorf("%d flushes, want %d; the value is there: %v", n, asks, !there)
			}
		}
		c.Ask("set k 0 0 1\r\nx\r\nflush_all 5", "STORED", "OK")
		after(4900*time.Millisecond, true, 0)
		host.fails.Store(2)
		after(200*time.Millisecond, true, 1)
		after(2*time.Second, true, 2)
		after(2*time.Second, false, 3)
		after(time.Minute, false, 3)

		c.Ask("set k 0 0 1\r\nx\r\nflush_all 5\r\nflush_all 60", "STORED", "OK", "OK")
		after(30*time.Second, true, 3)
		host.fails.Store(1)
		after(30500*time.Millisecond, true, 4)
		c.Ask("flush_all 100", "OK") // in the place of the one that is about to fail
		after(50*time.Second, true, 4)
		door.Close()
		after(time.Hour, true, 4)
	})
}
