package sidecar

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A flush ends the loads under way of a namespace that has lost its slot since they
// began: what they bring is neither kept nor given to a caller that asks after it.
func TestFlushOfALostSlot(t *testing.T) {
	s := start(t, Config{MaxNamespaces: 2, NoSocket: true})
	ctx := t.Context()
	lease := &wire.Request{Op: wire.OpLease, Namespace: b("a"), Key: b("k")}
	token := served(s, lease).Token
	if _, err := s.Set(ctx, "b", b("k"), b("v"), SetOptions{}); err != nil { // in a's slot
		t.Fatal(err)
	}
	if _, err := s.Delete(ctx, "b", b("k")); err != nil {
		t.Fatal(err)
	}
	if err := s.Flush(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	fill := &wire.Request{Op: wire.OpFill, Namespace: b("a"), Key: b("k"), Token: token, Value: b("old"), TTLMS: wire.TTLDefault}
	if r := served(s, fill); r.Status != wire.NotStored {
		t.Errorf("FILL: %s %s", r.Status, r.Message)
	}
	if v, err := s.Get(ctx, "a", b("k")); err == nil {
		t.Errorf("a GET after the flush finds %q", v.Data)
	}
}

// The same of a flush of the cluster, and of a caller that waits for the load.
func TestVirtualFlushOfALostSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		for _, v := range w.nodes {
			v.start()
		}
		w.agreed(15 * time.Second)
		v := w.nodes[0]
		put := func(namespace string) (key []byte) {
			t.Helper()
			key, _ = heldIn(v, namespace, "key")
			if _, err := v.s.Set(t.Context(), namespace, key, b("v"), SetOptions{}); err != nil {
				t.Fatal(err)
			}
			return key
		}
		for i := range kv.MaxNamespaces - 2 { // all slots but one
			put(fmt.Sprint("ns", i))
		}
		key, _ := heldIn(v, "a", "key")
		lease := &wire.Request{Op: wire.OpLease, Namespace: b("a"), Key: key}
		token := served(v.s, lease).Token
		if _, err := v.s.Delete(t.Context(), "b", put("b")); err != nil { // in a's slot
			t.Fatal(err)
		}
		if err := flushThrough(v, "a", time.Second); err != nil {
			t.Fatal(err)
		}
		later := make(chan wire.Reply, 1)
		go func() { later <- served(v.s, lease) }() // ends with the FILL, or its own time
		synctest.Wait()
		fill := &wire.Request{Op: wire.OpFill, Namespace: b("a"), Key: key, Token: token, Value: b("old"), TTLMS: wire.TTLDefault}
		if r := served(v.s, fill); r.Status != wire.NotStored {
			t.Errorf("FILL: %s %s", r.Status, r.Message)
		}
		if r := <-later; r.Status == wire.OK {
			t.Errorf("a caller that asked after the flush got %q", r.Value)
		}
		for _, v := range w.nodes {
			v.leave()
		}
		time.Sleep(30 * time.Second)
	})
}
