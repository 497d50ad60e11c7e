package engine_test

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestOutdate checks that a change at the origin deletes keys from the cache alone, also in a namespace
// that writes through, and of a key that its pattern refuses; and that a namespace without values does
// not keep it waiting.
func TestOutdate(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		o := onehost.NewOrigin(time.Millisecond)
		h := writing(t, o, func(s *namespaces.Settings) { s.KeyPattern = "k.*" })
		asks(h.Do).set("k1", "one")
		asks(h.Do).set("k2", "two")
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if leads, _ := h.Leads("shop"); !leads {
			t.Error("a host alone does not lead")
		}
		if err := h.Outdate(ctx, "default", [][]byte{[]byte("k1"), []byte("other")}); err != nil {
			t.Error(err)
		}
		onehost.Is(t, "k1", h.Get("k1", wire.NoLoad), wire.Miss, "")
		onehost.Is(t, "k2", h.Get("k2", wire.NoLoad), wire.OK, "two")
		if o.Row("k1") != "one" {
			t.Errorf("the origin has %q", o.Row("k1"))
		}
		for _, namespace := range []string{"unused", "default"} {
			if err := h.Outdate(ctx, namespace, [][]byte{[]byte("k3")}); err != nil {
				t.Errorf("namespace %s: %v", namespace, err)
			}
			if err := h.FlushAll(ctx, namespace); err != nil {
				t.Errorf("a flush of %s: %v", namespace, err)
			}
		}
		onehost.Is(t, "k2", h.Get("k2", wire.NoLoad), wire.Miss, "")
		if o.Row("k2") != "two" {
			t.Errorf("the origin has %q", o.Row("k2"))
		}
	})
}
