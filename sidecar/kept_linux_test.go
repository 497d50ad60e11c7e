package sidecar

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
)

// keptWorld has three hosts that keep their entries, and keys that the first one owns.
func keptWorld(t *testing.T, keys int) (w *world, owned []string) {
	w = newWorld(t, 1, 3)
	w.keeps = true
	for _, v := range w.nodes {
		v.start()
	}
	w.agreed(20 * time.Second)
	time.Sleep(w.bound)
	owner := w.nodes[0].s
	for i := 0; len(owned) < keys; i++ {
		key := fmt.Sprint("kept", i)
		if owner.engine.Node.OwnershipEpoch(owner.engine.Names.Hash([]byte(DefaultNamespace), []byte(key)).Partition()) != 0 {
			w.set(owner, key, "old")
			owned = append(owned, key)
		}
	}
	return w, owned
}

func (w *world) set(s *Sidecar, key, value string) {
	w.t.Helper()
	if _, err := s.Set(context.Background(), DefaultNamespace, key, []byte(value), cachesidecar.SetOptions{}); err != nil {
		w.t.Error(err)
	}
}

// restart starts a host anew, with do while it is down and others own its keys.
func (v *vnode) restart(do func()) {
	v.leave()
	time.Sleep(time.Second)
	do()
	v.start()
	v.w.agreed(20 * time.Second)
	for began := time.Now(); v.s.engine.Kept().Waiting > 0 && time.Since(began) < time.Minute; {
		time.Sleep(10 * time.Millisecond)
	}
}

// TestKeptInCluster checks that a host that is started again serves what it had before, but for what
// changed meanwhile, time after time.
func TestKeptInCluster(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w, keys := keptWorld(t, 300)
		v := w.nodes[0]
		for round := range 3 {
			want := map[string]string{}
			changed := fmt.Sprint("new", round)
			v.restart(func() {
				heir, ctx := w.nodes[1].s, context.Background()
				for i, key := range keys {
					want[key] = "old"
					switch i % 10 {
					case 0:
						w.set(heir, key, changed)
						want[key] = changed
					case 1:
						if err := heir.Delete(ctx, DefaultNamespace, key, cachesidecar.DeleteOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
							t.Error(err)
						}
						want[key] = ""
					}
				}
			})
			k := v.s.engine.Kept()
			if k.Cold != "" || k.Partitions == 0 || k.Again != k.Partitions || k.Changed == 0 {
				t.Fatalf("round %d: %+v", round, *k)
			}
			for _, key := range keys {
				got, err := v.s.Get(context.Background(), DefaultNamespace, key, cachesidecar.GetOptions{})
				if string(got.Value) != want[key] {
					t.Errorf("round %d: %s is %q, want %q (%v)", round, key, got.Value, want[key], err)
				}
				w.set(v.s, key, "old")
			}
		}
		w.leaveAll()
	})
}
