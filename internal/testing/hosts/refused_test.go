package hosts

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
)

// A host that the others refuse because of its settings reports that to its apps at once,
// and in its readiness. Its reads miss.
func TestVirtualRefusedSaysSo(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		w.bound = 2 * cluster.DefaultBound
		v := &vnode{w: w, i: 2, name: "other", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
		w.nodes = append(w.nodes, v)
		v.start()
		time.Sleep(10 * time.Second)
		ctx := context.Background()
		began := time.Now()
		_, set := v.s.Set(ctx, "default", "k", []byte("v"), cachesidecar.SetOptions{})
		_, del := v.s.DeleteMulti(ctx, "default", []string{"k"}, cachesidecar.DeleteOptions{})
		_, get := v.s.Get(ctx, "default", "k", cachesidecar.GetOptions{})
		if d := time.Since(began); d > 0 {
			t.Errorf("the answers took %v", d)
		}
		for _, err := range []error{set, del} {
			if !errors.Is(err, cachesidecar.ErrUnavailable) || !strings.Contains(err.Error(), "max_staleness") {
				t.Errorf("a write: %v", err)
			}
		}
		if !errors.Is(get, cachesidecar.ErrNotFound) {
			t.Errorf("a read: %v", get)
		}
		if words, ready := v.s.readiness(); ready || !strings.Contains(words, "max_staleness") {
			t.Errorf("readiness: %v, %q", ready, words)
		}
		if stored := setAll(w.nodes[0], 20, "v"); stored != 20 {
			t.Errorf("the others store %d of 20", stored)
		}
	})
}
