package hosts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestVirtualReload: three hosts change their settings again and again while apps change
// rows of the origin, announce it, and read. Loads are under way across the reloads. No
// read returns a row that was changed longer ago than the bound, and a host that has
// announced a change never returns the row from before. No request fails.
func TestVirtualReload(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	var mu sync.Mutex
	rnd := rand.New(rand.NewPCG(firstSeed(), 7))
	random := func(n int) int {
		mu.Lock()
		defer mu.Unlock()
		return rnd.IntN(n)
	}
	db := newDatabase(func() time.Duration { return time.Duration(1+random(30)) * time.Millisecond })
	const keys = 4
	for k := range keys {
		db.set(fmt.Sprint("k", k), []byte("0"))
	}
	withNodes(t, 3, db, Namespace{}, func(w *world) {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		var reads, reloads atomic.Int64
		for k := range keys {
			key := fmt.Sprint("k", k)
			var all atomic.Int64 // the row that no host may be behind
			var own [3]atomic.Int64
			wg.Go(func() { // changes the row
				for n := int64(1); ctx.Err() == nil; n++ {
					db.set(key, strconv.AppendInt(nil, n, 10))
					at := random(3)
					_, err := w.nodes[at].s.DeleteMulti(context.Background(), w.space, []string{key}, cachesidecar.DeleteOptions{})
					if err != nil {
						w.fail("a deletion: %v", err)
					}
					own[at].Store(n)
					time.AfterFunc(w.bound, func() { all.Store(max(all.Load(), n)) })
					time.Sleep(time.Duration(random(200)) * time.Millisecond)
				}
			})
			for i, v := range w.nodes {
				for range 2 {
					wg.Go(func() {
						for ctx.Err() == nil {
							least := max(all.Load(), own[i].Load())
							item, err := v.s.Get(context.Background(), w.space, key, cachesidecar.GetOptions{})
							if err != nil {
								w.fail("a read: %v", err)
							} else if n, _ := strconv.ParseInt(string(item.Value), 10, 64); n < least {
								w.fail("%s at %s: %d, and %d was known before the read", key, v.name, n, least)
							}
							reads.Add(1)
							time.Sleep(time.Duration(1+random(10)) * time.Millisecond)
						}
					})
				}
			}
		}
		wg.Go(func() { // reloads
			for ctx.Err() == nil {
				cfg := w.nodes[random(3)].s.present()
				ttl := time.Duration(1+random(60)) * time.Second
				ns := Namespace{
					DefaultTTL: &ttl, Quota: Size(1+random(4)) << 20, Origin: &loader.Custom{Source: db},
					MaxStaleness: cfg.Namespaces[w.space].MaxStaleness,
				}
				if random(2) == 0 {
					ns.ReplicaLag = 100 * time.Millisecond
				}
				cfg.Namespaces = map[string]Namespace{w.space: ns, fmt.Sprint("other", random(5)): {}}
				for _, v := range w.nodes {
					if v.name == cfg.Node {
						if _, err := v.s.Apply(context.Background(), cfg); err != nil {
							w.fail("a reload: %v", err)
						}
					}
				}
				reloads.Add(1)
				time.Sleep(time.Duration(1+random(30)) * time.Millisecond)
			}
		})
		wg.Wait()
		time.Sleep(w.bound)
		if reads.Load() < 5000 || reloads.Load() < 300 {
			w.fail("only %d reads and %d reloads", reads.Load(), reloads.Load())
		}
		var sum cachesidecar.LoadStats
		for _, v := range w.nodes {
			st := v.s.engine.Namespaces.Lookup([]byte(w.space)).LoadStats()
			sum.Detached += st.Detached
			sum.Loaded += st.Loaded
			sum.Calls += st.Calls
			sum.UnderWay += st.UnderWay
		}
		if sum.Detached < 50 || sum.Loaded < 500 || sum.UnderWay != 0 || sum.Calls != sum.Loaded {
			w.fail("%+v", sum)
		}
	})
}

// TestVirtualReloadInDrain: reloads while a drain is under way neither end it nor are lost:
// the host owns nothing until the drain is taken back, and has its new weight then. No
// request fails.
func TestVirtualReloadInDrain(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		for _, v := range w.nodes {
			w.strict(ctx, &wg, v, v.s, 20)
		}
		v := w.nodes[1]
		drained := make(chan error, 1)
		go func() { // ends with the drain
			_, err := v.s.Drain(ctx, cachesidecar.DrainOptions{})
			drained <- err
		}()
		begun := v.s.engine.Node.Owned().Len()
		for n := range 20 {
			cfg := v.s.present()
			cfg.Weight = uint32(30 + n)
			cfg.Namespaces = map[string]Namespace{fmt.Sprint("other", n): {}}
			if _, err := v.s.Apply(ctx, cfg); err != nil {
				w.fail("a reload: %v", err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		if err := <-drained; err != nil || begun == 0 {
			w.fail("drain: %v; it owned %d", err, begun)
		}
		time.Sleep(5 * time.Second)
		if st := v.s.telemetry.ClusterState(); !st.Drained || st.Owned != 0 {
			w.fail("after the reloads: drained: %v, it owns %d", st.Drained, st.Owned)
		}
		if _, err := v.s.Drain(ctx, cachesidecar.DrainOptions{Undo: true}); err != nil {
			w.fail("undo: %v", err)
		}
		time.Sleep(5 * time.Second)
		w.agreed(15 * time.Second)
		for _, m := range v.s.engine.Node.Members() {
			if m.ID == v.s.engine.Node.Self() && m.Weight != 49 {
				w.fail("its weight is %d, want 49", m.Weight)
			}
		}
		stop()
		wg.Wait()
	})
}
