package sidecar

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Flushes of the whole cluster: what they wait for, and what they leave.

// flushThrough flushes a namespace of the cluster through a host, or all where the
// name is empty.
func flushThrough(v *vnode, name string, within time.Duration) error {
	q := wire.Request{Op: wire.OpFlush, Namespace: []byte(name), Options: wire.Cluster, TimeoutMS: uint32(within.Milliseconds())}
	if name == "" {
		q.Namespace, q.Options = defaultNamespace, wire.Cluster|wire.All
	}
	s := v.s
	b := borrowed{names: s.names}
	defer b.release()
	now := s.clock.Read()
	s.node.Beat(now.Boot)
	r := s.serve(context.Background(), &q, &b, s.deadlineOf(&q, now))
	return r.Err()
}

// found counts the keys that are read through a host.
func found(v *vnode, n int) (hits int) {
	for i := range n {
		if _, err := v.s.Get(context.Background(), "default", testKeyOf(i)); err == nil {
			hits++
		}
	}
	return hits
}

// What was written after a flush stays, however often hosts are restarted that have
// to hear of the flush anew: a floor is as old as its flush.
func TestFlushThenRestarts(t *testing.T) {
	const n = 60
	for _, name := range []string{"default", ""} {
		inQuietWorld(t, 3, func(t *testing.T, w *world) {
			setAll(w.nodes[0], n, "before")
			if err := flushThrough(w.nodes[0], name, 5*time.Second); err != nil {
				t.Fatal(err)
			}
			for _, v := range w.nodes {
				if hits := found(v, n); hits > 0 {
					t.Errorf("flush of %q: %d keys are read through %s after it", name, hits, v.name)
				}
			}
			setAll(w.nodes[0], n, "after")
			for round := range 2 {
				for _, v := range w.nodes {
					v.leave()
					time.Sleep(5 * time.Second)
					v.start()
					time.Sleep(5 * time.Second)
					w.agreed(15 * time.Second)
					if hits := found(v, n); hits != n {
						t.Errorf("flush of %q, round %d: %d of %d keys are left after a restart of %s", name, round, hits, n, v.name)
					}
				}
			}
		})
	}
}

// A side without a majority of the voters acknowledges no flush.
func TestFlushByAMinority(t *testing.T) {
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		const n = 100
		left, right := w.nodes[:2], w.nodes[2:]
		setAll(left[0], n, "before")
		i := 0
		w.split(true, func() bool { i++; return i <= len(left) })
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(500 * time.Millisecond) {
			if err := flushThrough(left[0], "default", time.Second); err == nil {
				t.Fatalf("%v after the split a minority has flushed", time.Since(began))
			}
		}
		if hits := found(right[0], n); hits == 0 {
			t.Error("the majority has lost all keys")
		}
		w.net.Heal()
		time.Sleep(10 * time.Second)
		if err := flushThrough(left[0], "default", time.Second); err != nil {
			t.Errorf("once healed: %v", err)
		}
	}, "n1", "n2", "n4")
}
