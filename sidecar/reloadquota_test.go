package sidecar

import (
	"fmt"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestReloadQuota: a quota that a reload brings, changes or takes back holds for what is
// there already, and takes no room for what has gone.
func TestReloadQuota(t *testing.T) {
	const value = 4 << 10
	r := newReloaded(t, Config{})
	fill := func(first, n int) {
		t.Helper()
		for i := range n {
			if _, err := r.s.Set(t.Context(), "pages", fmt.Sprint("k", first+i), make([]byte, value), cachesidecar.SetOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := func() (bytes int64) {
		ns := r.s.engine.Namespaces.Lookup([]byte("pages"))
		return r.s.engine.Store.NamespaceStats(ns.ID).Bytes
	}
	quota := func(size Size) {
		t.Helper()
		r.apply(func(c *Config) { c.Namespaces["pages"] = Namespace{Quota: size} })
	}
	fill(0, 256) // 1 MiB, before there is a quota
	quota(256 << 10)
	fill(1000, 1)
	if got := held(); got > 256<<10 {
		t.Errorf("%d bytes after a quota of 256 KiB has come", got)
	}
	fill(2000, 128)
	if got := held(); got > 256<<10 || got < 200<<10 {
		t.Errorf("%d bytes of 256 KiB after more keys", got)
	}
	quota(128 << 10)
	fill(3000, 1)
	if got := held(); got > 128<<10 {
		t.Errorf("%d bytes after a smaller quota of 128 KiB", got)
	}
	r.apply(func(c *Config) { delete(c.Namespaces, "pages") })
	fill(4000, 128)
	testenv.Must(t, r.s.Flush(t.Context(), "pages", cachesidecar.FlushOptions{}))
	quota(128 << 10)
	fill(5000, 128)
	if got := held(); got > 128<<10 || got < 100<<10 {
		t.Errorf("%d bytes of 128 KiB after the quota has gone and come again", got)
	}
}
