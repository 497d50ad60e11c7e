package hosts

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// threeHosts returns a world of three hosts that own all partitions.
func threeHosts(t *testing.T, keeps bool) *world {
	w := newWorld(t, 1, 3)
	w.keeps = keeps
	w.startAll()
	w.agreed(20 * time.Second)
	time.Sleep(w.bound)
	return w
}

// keptWorld has three hosts, and keys that the first one owns.
func keptWorld(t *testing.T, keys int, keeps bool) (w *world, owned []string) {
	w = threeHosts(t, keeps)
	owner := w.nodes[0].s
	owned = keysIn(owner, DefaultNamespace, "kept", true, keys)
	for _, key := range owned {
		w.set(owner, key, "old")
	}
	return w, owned
}

func (w *world) set(s *Sidecar, key, value string) {
	w.t.Helper()
	if _, err := s.Set(context.Background(), DefaultNamespace, key, []byte(value), cachesidecar.SetOptions{}); err != nil {
		w.t.Error(err)
	}
}

// decided waits until a process that has taken entries over knows which of them it serves again.
func (v *vnode) decided() *cachesidecar.KeptStats {
	v.w.agreed(20 * time.Second)
	for began := time.Now(); v.s.engine.Kept().Waiting > 0 && time.Since(began) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
	return v.s.engine.Kept()
}

// evictAll evicts what the hosts have of the keys' namespace, as if there had been no time to hand it over.
func (w *world) evictAll() {
	for _, v := range w.nodes {
		if v.s != nil {
			store, ns := v.s.engine.Store, v.s.engine.Namespaces.Lookup([]byte(DefaultNamespace))
			store.SetLimits(ns.ID, 1, segment.Limits{})
			store.Shrink(ns.ID, v.clock.Read().Boot)
			store.SetLimits(ns.ID, 0, segment.Limits{})
		}
	}
}

// holds compares what a host returns with what it must return; "": a miss.
func (w *world) holds(s *Sidecar, want map[string]string, bad func(string, ...any)) (all bool) {
	all = true
	for key, value := range want {
		got, err := s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
		if string(got.Value) != value {
			bad("%s is %q, want %q (%v)", key, got.Value, value, err)
			all = false
		}
	}
	return all
}

// TestKeptInCluster checks that a host that is started again serves what it had before, but for what
// changed meanwhile: time after time.
func TestKeptInCluster(t *testing.T) { keptInCluster(t, t.Errorf) }

func keptInCluster(t *testing.T, bad func(string, ...any)) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 300, true)
		v, ctx := w.nodes[0], context.Background()
		for round := range 3 {
			want := map[string]string{}
			owned := v.s.engine.Node.Owned().Len()
			v.leave()
			time.Sleep(time.Second)
			w.evictAll()
			heir := w.nodes[1].s
			for i, key := range keys {
				want[key] = "old"
				switch i % 10 {
				case 0:
					want[key] = fmt.Sprint("set", round)
					w.set(heir, key, want[key])
				case 1:
					want[key] = ""
					_ = heir.Delete(ctx, DefaultNamespace, key, cachesidecar.DeleteOptions{}) // the heir does not have it
				case 2:
					l := w.nodes[1].raw(wire.Request{Op: wire.OpLease, Key: []byte(key)})
					want[key] = fmt.Sprint("filled", round)
					is(t, key, w.nodes[1].raw(wire.Request{
						Op: wire.OpFill, Key: []byte(key), Token: l.Token, Value: []byte(want[key]),
					}), wire.OK, "")
				}
			}
			v.start()
			if k := v.decided(); k.Cold != "" || k.Partitions != owned || k.Again != owned {
				t.Fatalf("round %d, of %d partitions: %+v", round, owned, *k)
			}
			if !w.holds(v.s, want, bad) {
				t.Logf("round %d: %+v, %+v", round, *v.s.engine.Kept(), v.s.engine.Store.Stats())
				break
			}
			for _, key := range keys {
				w.set(v.s, key, "old")
			}
		}
		w.killAll()
	})
}

// TestKeptUntilFlush checks that a flush ends what was kept, also one of an heir alone, which no other host hears of.
func TestKeptUntilFlush(t *testing.T) {
	keptUntilFlush(t, cachesidecar.FlushOptions{}, t.Errorf)
	keptUntilFlush(t, cachesidecar.FlushOptions{Local: true}, t.Errorf)
}

func keptUntilFlush(t *testing.T, o cachesidecar.FlushOptions, bad func(string, ...any)) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 100, true)
		v, want := w.nodes[0], map[string]string{}
		v.leave()
		time.Sleep(time.Second)
		for _, heir := range w.nodes[1:] {
			testenv.Must(t, heir.s.Flush(context.Background(), DefaultNamespace, o))
		}
		v.start()
		if k := v.decided(); k.Partitions == 0 {
			t.Errorf("%+v", *k)
		}
		for _, key := range keys {
			want[key] = ""
		}
		w.holds(v.s, want, bad)
		w.killAll()
	})
}

// TestKeptForOneOwner checks that what was kept is of no use once two hosts have owned it.
func TestKeptForOneOwner(t *testing.T) { keptForOneOwner(t, t.Errorf) }

func keptForOneOwner(t *testing.T, bad func(string, ...any)) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 300, true)
		v, want := w.nodes[0], map[string]string{}
		v.leave()
		time.Sleep(time.Second)
		for _, key := range keys {
			w.set(w.nodes[1].s, key, "new")
			want[key] = "new"
		}
		time.Sleep(w.bound)
		w.nodes[1].leave() // another host gets what it owned, as far as it was read
		time.Sleep(time.Second)
		v.start()
		k := v.decided()
		if k.Partitions == 0 || k.Again == 0 {
			t.Errorf("%+v", *k)
		}
		for key := range want {
			got, err := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
			if err == nil && string(got.Value) == "old" {
				bad("%s is old", key)
			}
		}
		w.nodes[1].start()
		w.killAll()
	})
}
