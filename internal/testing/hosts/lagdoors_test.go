package hosts

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// lateReplica is an origin whose rows have all changed once, and whose replica lags.
type lateReplica struct {
	takes time.Duration // of a load

	mu sync.Mutex
	at time.Time // of the change; zero: not yet
}

// trueLag is less than testLag, the replica_lag.
const trueLag = testLag * 8 / 10

func (l *lateReplica) Load(context.Context, []byte) (loader.Value, error) {
	l.mu.Lock()
	old := l.at.IsZero() || time.Since(l.at) < trueLag
	l.mu.Unlock()
	time.Sleep(l.takes)
	if old {
		return loader.Value{Bytes: []byte("old")}, nil
	}
	return loader.Value{Bytes: []byte("new")}, nil
}

func (l *lateReplica) change() {
	l.mu.Lock()
	l.at = time.Now()
	l.mu.Unlock()
}

// valueOf reads a key; "" is none.
func (v *vnode) valueOf(ns, key string, o cachesidecar.GetOptions) (value, source string) {
	got, err := v.s.Get(context.Background(), ns, key, o)
	if err != nil {
		return err.Error(), ""
	}
	return string(got.Value), got.Source
}

// lagDoors: rows change, and apps tell of it at each door. Then something may happen to the owner of their keys.
// What is loaded from the replica meanwhile is of no use: a minute later all hosts have the new values. After a
// handover in order, other keys are cached as always.
func lagDoors(t *testing.T, how string, bad func(string, ...any)) {
	bubble.Test(t, func(t *testing.T) {
		src, w := &lateReplica{}, newWorld(t, 1, 4)
		w.keeps = how == "restarted with kept memory"
		w.namespaces = map[string]Namespace{}
		for _, name := range []string{"lagging", "flushed", "flushed-here"} {
			w.namespaces[name] = Namespace{ReplicaLag: testLag, Origin: loader.Custom{Source: src}}
		}
		owner, reader, last := w.nodes[0], w.nodes[1], w.nodes[3]
		for _, v := range w.nodes[:3] {
			v.start()
		}
		w.agreed(20 * time.Second)
		if err := owner.s.Flush(t.Context(), "lagging", cachesidecar.FlushOptions{}); err != nil { // remembered, and long ago
			t.Fatal(err)
		}
		time.Sleep(2 * testLag)
		keys := map[string][]string{"an unchanged key": keysIn(owner.s, "lagging", "unchanged", true, 20)}
		for _, door := range []string{"DELETE", "SET, evicted", "SET, expired", "INCR, evicted", "soft DELETE"} {
			keys[door] = keysIn(owner.s, "lagging", door, true, 20)
		}
		for _, name := range []string{"flushed", "flushed-here"} {
			keys[name] = keysIn(owner.s, name, name, true, 20)
		}
		all := func(do func(door, ns, key string)) {
			for door, list := range keys {
				ns := "lagging"
				if w.namespaces[door].ReplicaLag > 0 {
					ns = door
				}
				for _, key := range list {
					do(door, ns, key)
				}
			}
		}
		all(func(door, ns, key string) {
			if door != "an unchanged key" {
				reader.valueOf(ns, key, cachesidecar.GetOptions{})
			}
		})
		src.change()
		all(func(door, ns, key string) { tell(t, owner.s, door, ns, key) })
		for ns, o := range map[string]cachesidecar.FlushOptions{"flushed": {}, "flushed-here": {Local: true}} {
			testenv.Must(t, owner.s.Flush(t.Context(), ns, o))
		}
		for _, v := range w.nodes[:3] {
			evictAllOf(v, "lagging")
		}
		time.Sleep(200 * time.Millisecond)
		befall(w, how, owner, last)
		time.Sleep(time.Second)
		for _, key := range keys["an unchanged key"] {
			reader.valueOf("lagging", key, cachesidecar.GetOptions{})
			if _, source := reader.valueOf("lagging", key, cachesidecar.GetOptions{}); source == "origin" && how != "killed" {
				bad("%s: %s has not changed, and what was loaded for it is not kept", how, key)
			}
		}
		time.Sleep(time.Second)
		all(func(_, ns, key string) { reader.valueOf(ns, key, cachesidecar.GetOptions{}) })
		time.Sleep(time.Minute)
		old := map[string]int{}
		all(func(door, ns, key string) {
			value, _ := reader.valueOf(ns, key, cachesidecar.GetOptions{})
			fresh, _ := reader.valueOf(ns, key, cachesidecar.GetOptions{Fresh: true})
			if door != "an unchanged key" && (value == "old" || fresh == "old") {
				old[door]++
			}
		})
		for door, n := range old {
			bad("%s, then %s: a minute after it %d of %d keys have the old value", door, how, n, len(keys[door]))
		}
		for _, v := range w.nodes {
			if v.s != nil {
				v.kill()
			}
		}
		time.Sleep(30 * time.Second)
	})
}

// tell announces the change of a key's row at a door.
func tell(t *testing.T, s *Sidecar, door, ns, key string) {
	t.Helper()
	var err error
	switch door {
	case "DELETE":
		del(t, s, ns, []byte(key), 0, 0)
	case "soft DELETE":
		del(t, s, ns, []byte(key), 0, wire.Soft)
	case "SET, evicted":
		_, err = s.Set(t.Context(), ns, key, []byte("new"), cachesidecar.SetOptions{})
	case "SET, expired":
		_, err = s.Set(t.Context(), ns, key, []byte("new"), cachesidecar.SetOptions{TTL: 100 * time.Millisecond})
	case "INCR, evicted":
		del(t, s, ns, []byte(key), time.Millisecond, 0)
		_, err = s.execute(t.Context(), &wire.Request{
			Op: wire.OpIncr, Namespace: []byte(ns), Key: []byte(key), Create: true, TTLMS: wire.TTLDefault,
		})
	}
	if err != nil {
		t.Fatalf("%s: %v", door, err)
	}
}

// evictAllOf evicts what a host has of a namespace.
func evictAllOf(v *vnode, name string) {
	store, ns := v.s.engine.Store, v.s.engine.Namespaces.Lookup([]byte(name))
	limits := segment.Limits{Stale: time.Minute}
	store.SetLimits(ns.ID, 1, limits)
	store.Shrink(ns.ID, v.clock.Read().Boot)
	store.SetLimits(ns.ID, 0, limits)
}

// befall does something to the owner of keys. last has not been started yet.
func befall(w *world, how string, owner, last *vnode) {
	switch how {
	case "restarted", "restarted with kept memory":
		owner.leave()
		time.Sleep(200 * time.Millisecond)
		owner.start()
	case "replaced by a new host":
		last.start()
		time.Sleep(time.Second)
		owner.leave()
	case "moved":
		owner.s.engine.Node.SetWeight(1)
	case "killed":
		owner.kill()
		time.Sleep(2 * w.bound) // until others have taken its partitions over
	}
}

// TestVirtualLagDoors checks that no door lets in what a replica that lags has brought.
func TestVirtualLagDoors(t *testing.T) {
	t.Parallel()
	for _, how := range []string{
		"left alone", "restarted", "restarted with kept memory", "replaced by a new host", "moved", "killed",
	} {
		t.Run(how, func(t *testing.T) { lagDoors(t, how, t.Errorf) })
	}
}

// lagEarly: the row of a live value changes, and an app sets the new value. A load before the end of that value,
// by refresh_early or with a memcached client's claim, does not replace it by the replica's.
func lagEarly(t *testing.T, claims bool, bad func(string, ...any)) {
	bubble.Test(t, func(t *testing.T) {
		src, w := &lateReplica{takes: time.Second}, newWorld(t, 1, 3)
		ns := Namespace{ReplicaLag: testLag}
		if !claims {
			ns.Origin = loader.Custom{Source: src}
		}
		w.namespaces = map[string]Namespace{"lagging": ns}
		w.startAll()
		w.agreed(20 * time.Second)
		time.Sleep(2 * testLag)
		v := w.nodes[0]
		key := keysIn(v.s, "lagging", "k", true, 1)[0]
		if !claims {
			v.valueOf("lagging", key, cachesidecar.GetOptions{})
		}
		src.change()
		if _, err := v.s.Set(t.Context(), "lagging", key, []byte("new"), cachesidecar.SetOptions{TTL: testLag * 6 / 10}); err != nil {
			t.Fatal(err)
		}
		for began := time.Now(); time.Since(began) < testLag*55/100; time.Sleep(50 * time.Millisecond) {
			q := wire.Request{Op: wire.OpMetaGet, Namespace: []byte("lagging"), Key: []byte(key), Options: wire.Claim, RenewMS: 5000}
			if r, err := v.s.execute(t.Context(), &q); claims && err == nil && r.Claim == wire.ClaimWon {
				row, _ := src.Load(t.Context(), []byte(key))
				_, _ = v.s.execute(t.Context(), &wire.Request{
					Op: wire.OpSet, Namespace: q.Namespace, Key: q.Key, Value: row.Bytes, Mode: wire.ModeCAS,
					Compare: uint64(r.Number), TTLMS: wire.TTLDefault,
				})
			}
			if got, source := v.valueOf("lagging", key, cachesidecar.GetOptions{}); got != "new" {
				bad("%v after the SET of the new value: %q from %s", time.Since(began), got, source)
				break
			}
		}
		w.killAll()
	})
}

func TestVirtualLagEarly(t *testing.T) {
	t.Parallel()
	t.Run("refresh_early", func(t *testing.T) { lagEarly(t, false, t.Errorf) })
	t.Run("a claim", func(t *testing.T) { lagEarly(t, true, t.Errorf) })
}
