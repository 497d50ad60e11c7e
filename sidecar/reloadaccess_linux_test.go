package sidecar

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/access"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// A principal of earlier rules gets no region, which no reload would end.
func TestRegionOfEarlierRules(t *testing.T) {
	cfg := Config{NoSocket: true, L2Size: 8 << 20, SharedSize: 4 << 20, Access: map[string]Grants{
		"a": {Read: []string{"group:60001"}}, "b": {Read: []string{"group:60002"}},
	}}
	s, err := New(cfg)
	testenv.Must(t, err)
	m := s.engine.Regions
	m.MakeRoom(context.Background(), filepath.Join(t.TempDir(), "s"), int64(cfg.SharedSize))
	t.Cleanup(func() {
		m.Close()
		_ = s.engine.Store.Close()
	})
	of := func() *access.Principal {
		by := s.engine.Access.Caller(unixsock.Peer{UID: 1})
		return by.Principal()
	}
	ask := func(by *access.Principal) *wire.Error {
		f, _, bad := m.OpenRegion(by)
		if bad == nil {
			_ = f.Close()
		}
		return bad
	}
	before := of()
	if bad := ask(before); bad != nil {
		t.Fatal(bad)
	}
	cfg.Access = map[string]Grants{"a": {Read: []string{"group:60001"}}}
	if _, err := s.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if m.RegionOf(before) != nil {
		t.Error("there is a region after the reload")
	}
	if bad := ask(before); bad == nil || bad.Status != wire.Busy {
		t.Errorf("by the earlier rules: %v", bad)
	}
	if bad := ask(of()); bad != nil {
		t.Error(bad)
	}
}
