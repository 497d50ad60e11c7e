package hosts

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// A load belongs to the ownership epoch of its read. If it begins just after that epoch
// has ended, no detach finds it, and this host does not hear what other hosts change
// meanwhile. So no read of a later epoch joins the load, and its value is not kept.
func TestVirtualLoadOfEndedOwnership(t *testing.T) { loadOfEndedOwnership(t, t.Errorf) }

// loadOfEndedOwnership calls bad if a read returns what was deleted while another host
// owned the key.
func loadOfEndedOwnership(t *testing.T, bad func(format string, args ...any)) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		w.noRelay = true
		a, b := w.nodes[0], w.nodes[1]
		var row atomic.Value
		var slow atomic.Bool
		row.Store("old")
		w.ns = Namespace{Limits: Limits{Timeout: 30 * time.Second}, Origin: own(func(context.Context, []byte) (loader.Value, error) {
			v := row.Load().(string)
			if slow.Swap(false) {
				time.Sleep(25 * time.Second)
			}
			return loader.Value{Bytes: []byte(v)}, nil
		})}
		w.startAll()
		w.agreed(15 * time.Second)
		ctx := context.Background()
		key, h := keyOwnedBy(a, "key")
		ns := a.s.engine.Namespaces.Lookup(session.DefaultNamespace)
		load := a.s.engine.Loads.New(ns, ns.Key(key), a.s.engine.Node.OwnershipEpoch(h.Partition()), nil)
		weight := a.s.cfg.Weight
		a.s.engine.Node.SetWeight(0)
		w.awaitOwned(b, h.Partition())
		slow.Store(true)
		if begun, err := ns.Loads.Refresh(load); !begun || err != nil {
			t.Errorf("the load does not begin: %v", err)
		}
		synctest.Wait() // the load has read the old row
		if q := (&wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: key}); a.s.engine.Loads.Get(ctx, ns, ns.Key(key), q, a.clock.Read().Boot+time.Second).Status != wire.Moved {
			t.Errorf("a read that finds no holding loads all the same")
		}
		row.Store("new")
		w.net.Cut(a.ip, b.ip)
		if _, err := b.s.DeleteMulti(ctx, "default", []string{string(key)}, cachesidecar.DeleteOptions{}); err != nil && !errors.Is(err, cachesidecar.ErrNotFound) {
			t.Error(err)
		}
		deleted := time.Now()
		b.kill()
		a.s.engine.Node.SetWeight(weight)
		w.awaitOwned(a, h.Partition())
		r := a.do(&wire.Request{Op: wire.OpGet, Key: key, TimeoutMS: 30_000})
		if string(r.Value) == "old" {
			bad("a read that began %v after a deletion has what was deleted", time.Since(deleted))
		} else {
			is(t, "after a deletion elsewhere", r, wire.OK, "new")
		}
		time.Sleep(30 * time.Second) // the old load has ended
		is(t, "after the old load's end", a.get(string(key), 0), wire.OK, "new")
		a.leave()
		time.Sleep(time.Minute)
	})
}
