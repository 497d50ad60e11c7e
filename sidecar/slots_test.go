package sidecar

import (
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// A namespace keeps its slot while one of its lease tokens is in use: there is one token
// of a key at a time, and a flush finds it. Calls to owners are detached when a slot is
// freed.
func TestTokenKeepsItsSlot(t *testing.T) {
	s := start(t, Config{MaxNamespaces: 2, NoSocket: true})
	ctx := t.Context()
	var detached []kv.NamespaceID
	s.engine.Names.Detach = func(id kv.NamespaceID) { detached = append(detached, id) }
	lease := &wire.Request{Op: wire.OpLease, Namespace: b("a"), Key: b("k"), TimeoutMS: 1}
	r := served(s, lease)
	if r.Status != wire.Lease {
		t.Fatalf("LEASE: %s %s", r.Status, r.Message)
	}
	id := s.engine.Names.Lookup(b("a")).ID
	if _, err := s.Set(ctx, "b", "k", b("v"), cachesidecar.SetOptions{}); err == nil || !strings.Contains(err.Error(), "max_namespaces") {
		t.Errorf("another name in its slot: %v", err)
	}
	if r := served(s, lease); r.Status != wire.Timeout {
		t.Errorf("a second LEASE: %s %s", r.Status, r.Message)
	}
	if err := s.Flush(ctx, "a", cachesidecar.FlushOptions{}); err != nil {
		t.Fatal(err)
	}
	fill := &wire.Request{Op: wire.OpFill, Namespace: b("a"), Key: b("k"), Token: r.Token, Value: b("old"), TTLMS: wire.TTLDefault}
	if r := served(s, fill); r.Status != wire.NotStored {
		t.Errorf("FILL after a flush: %s %s", r.Status, r.Message)
	}
	if v, err := s.Get(ctx, "a", "k", cachesidecar.GetOptions{}); err == nil {
		t.Errorf("a GET after a flush finds %q", v.Value)
	}
	for began := time.Now(); ; time.Sleep(namespaces.SearchEvery / 4) { // a full table is searched only so often
		if _, err := s.Set(ctx, "b", "k", b("v"), cachesidecar.SetOptions{}); err == nil {
			break
		} else if time.Since(began) > time.Minute {
			t.Fatalf("the slot is not freed: %v", err)
		}
	}
	if len(detached) != 1 || detached[0] != id {
		t.Errorf("the calls of slots %v are detached, want %d", detached, id)
	}
}
