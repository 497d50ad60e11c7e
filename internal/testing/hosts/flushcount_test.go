package hosts

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// counter is incremented without a pause, through some hosts. It begins with a total that
// shows what was counted before a flush.
type counter struct {
	key   []byte
	begun int64 // INCRs since the flush began
	mu    sync.Mutex
	stop  func()
}

const totalBefore = 1_000_000

func counting(t *testing.T, key []byte, hosts ...*vnode) *counter {
	t.Helper()
	if _, err := hosts[0].s.Incr(t.Context(), "default", string(key), 1, cachesidecar.IncrOptions{Create: true, Initial: totalBefore}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Second)
	c := &counter{key: key}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	c.stop = func() { stop(); wg.Wait() }
	for _, v := range hosts {
		wg.Go(func() {
			for ; ctx.Err() == nil; time.Sleep(time.Millisecond) {
				c.mu.Lock()
				c.begun++
				c.mu.Unlock()
				// The call may fail while the key is on its way to another host.
				_, _ = v.s.Incr(context.Background(), "default", string(key), 1, cachesidecar.IncrOptions{Create: true, Initial: 1})
			}
		})
	}
	time.Sleep(50 * time.Millisecond)
	c.mu.Lock()
	c.begun = 0
	c.mu.Unlock()
	return c
}

// flushedBy ends the counting. It checks that, after an acknowledged flush, only INCRs
// since the flush began are counted.
func (c *counter) flushedBy(t *testing.T, err error, v *vnode) {
	t.Helper()
	c.stop()
	testenv.Must(t, err)
	n, err := v.s.Incr(t.Context(), "default", string(c.key), 1, cachesidecar.IncrOptions{})
	if err != nil && !errors.Is(err, cachesidecar.ErrNotFound) {
		t.Fatal(err)
	}
	if t.Logf("%d INCRs were begun, %d are counted", c.begun, n); n > c.begun+1 {
		t.Errorf("a flush that was acknowledged has left a total of %d, of %d INCRs since it began", n, c.begun+1)
	}
}

// TestVirtualFlushBesideMove checks a counter that moves from a host that has not yet
// heard of a flush to a host that has. What was counted before the flush does not move
// along.
func TestVirtualFlushBesideMove(t *testing.T) {
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		from, by, to := w.nodes[0], w.nodes[1], w.nodes[2]
		weight := uint32(from.s.cfg.L2Size >> 20)
		from.s.engine.Node.SetWeight(1)
		time.Sleep(10 * time.Second)
		held := to.s.engine.Node.Owned()
		from.s.engine.Node.SetWeight(weight)
		time.Sleep(10 * time.Second)
		var key []byte
		for i := 0; key == nil; i++ { // a key that moves when the weight is 1 again
			if p := from.s.engine.Namespaces.Hash(session.DefaultNamespace, testKeyOf(i)).Partition(); held.Has(p) && from.s.engine.Node.OwnershipEpoch(p) != 0 {
				key = testKeyOf(i)
			}
		}
		w.net.SetDelay(5*time.Millisecond, 5*time.Millisecond)
		c := counting(t, key, from, to)
		w.net.Cut(from.ip, by.ip)
		flushed := make(chan error, 1)
		go func() { flushed <- flushThrough(by, "default", 5*time.Second) }() // ends with its answer, below
		time.Sleep(600 * time.Millisecond)
		w.net.Heal() // before the two hosts consider each other dead
		w.net.Cut(from.ip, by.ip)
		from.s.engine.Node.SetWeight(1)
		p := from.s.engine.Namespaces.Hash(session.DefaultNamespace, key).Partition()
		for began := time.Now(); to.s.engine.Node.OwnershipEpoch(p) == 0; time.Sleep(time.Millisecond) {
			if time.Since(began) > 1500*time.Millisecond {
				t.Fatal("the counter does not move while the link is cut")
			}
		}
		time.Sleep(20 * time.Millisecond)
		w.net.Heal()
		c.flushedBy(t, <-flushed, to)
	})
}

// TestVirtualFlushBesideSilentOwner checks an owner that the flushing host does not
// reach. For a while the owner hears nothing from the voters either, and goes on counting
// under its authority.
func TestVirtualFlushBesideSilentOwner(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		by, holder, voters := w.nodes[3], w.nodes[4], w.nodes[:3]
		time.Sleep(10 * time.Second)
		key, _ := keyOwnedBy(holder, "counter")
		w.net.SetDelay(5*time.Millisecond, 5*time.Millisecond)
		c := counting(t, key, holder)
		w.net.Cut(holder.ip, by.ip)
		began := time.Now()
		flushed := make(chan error, 1)
		go func() { flushed <- flushThrough(by, "default", 10*time.Second) }() // ends with its answer, below
		// ahead reports whether a voter has noted a version above any time that an
		// unknown clock may show.
		ahead := func() bool {
			for _, v := range voters {
				if v.s.engine.Namespaces.Floors()["default"].Version.Wall().After(time.Now().Add(700 * time.Millisecond)) {
					return true
				}
			}
			return false
		}
		for ; !ahead(); time.Sleep(100 * time.Microsecond) {
			switch d := time.Since(began); {
			case d > 5*time.Second:
				t.Fatal("no version is ahead")
			case d > 900*time.Millisecond:
				for _, v := range voters {
					w.net.Cut(v.ip, holder.ip)
				}
			}
		}
		time.Sleep(1050 * time.Millisecond)
		w.net.Heal()
		w.net.Cut(holder.ip, by.ip)
		err := <-flushed
		w.net.Heal()
		c.flushedBy(t, err, holder)
	}, "n0", "n1", "n2")
}

// TestVirtualFlushToldLate checks a host that owns nothing and is not reached. A flush
// need not wait for this host. The host is told late, when it owns some keys. It keeps
// what was written to them since the flush was acknowledged.
func TestVirtualFlushToldLate(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		by, late := w.nodes[3], w.nodes[4]
		time.Sleep(5 * time.Second)
		late.s.engine.Node.SetWeight(0)
		time.Sleep(10 * time.Second)
		w.net.Cut(late.ip, by.ip)
		time.AfterFunc(600*time.Millisecond, func() { late.s.engine.Node.SetWeight(64) })
		testenv.Must(t, flushThrough(by, "default", 10*time.Second))
		for began := time.Now(); late.s.engine.Node.Owned().Empty(); time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatal("it takes no part of the keys")
			}
		}
		key, h := keyOwnedBy(late, "key")
		holding := late.s.engine.Node.OwnershipEpoch(h.Partition())
		mustSet(t, late.s, string(key), []byte("since"))
		time.Sleep(10 * time.Millisecond)
		w.net.Heal()
		time.Sleep(100 * time.Millisecond)
		if now := late.s.engine.Node.OwnershipEpoch(h.Partition()); now != holding {
			t.Fatalf("the holding is another: %d, was %d", now, holding)
		}
		if _, err := late.s.Get(t.Context(), "default", string(key), cachesidecar.GetOptions{}); err != nil {
			t.Errorf("what was written after the flush was acknowledged: %v", err)
		}
	}, "n0", "n1", "n2")
}
