package hosts

import (
	"context"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestVirtualAudit checks that hits in copies of other hosts' entries are compared with the origin
// where they are copies, that a reload changes the share and keeps the counts, and that a change
// that was announced at another host is no difference.
func TestVirtualAudit(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	o := newDatabase(always(0))
	withNodes(t, 3, o, Namespace{Audit: 100}, func(w *world) {
		audit := func(v *vnode) cachesidecar.AuditStats {
			return v.s.engine.Namespaces.Lookup(session.DefaultNamespace).AuditStats()
		}
		o.set("k", []byte("one"))
		reader := w.other("k")
		hit := func(value string, source wire.Source) {
			r := reader.get("k", 0)
			if is(t, "a hit", r, wire.OK, value); r.Source != source {
				t.Errorf("the source is %v, want %v", r.Source, source)
			}
			time.Sleep(100 * time.Millisecond)
		}
		reader.get("k", 0)
		reader.s.engine.L1.Wait()
		hit("one", wire.SourceL1)
		o.set("k", []byte("two"))
		hit("one", wire.SourceL1)
		time.Sleep(w.nodes[0].s.cfg.MaxStaleness)
		if a := audit(reader); a.Same != 1 || a.Differed != 1 {
			t.Errorf("a copy: %+v, want one that is the same and one that differs", a)
		}
		w.ownerOf("k").drop("k", 0)
		time.Sleep(w.nodes[0].s.cfg.MaxStaleness)
		reader.get("k", 0)
		reader.s.engine.L1.Wait()
		o.set("k", []byte("three"))
		hit("two", wire.SourceL1)
		w.ownerOf("k").drop("k", 0)
		time.Sleep(2 * w.nodes[0].s.cfg.MaxStaleness)
		if a := audit(reader); a.Settled != 1 || a.Differed != 1 {
			t.Errorf("announced: %+v, want one that has settled", a)
		}
		before := audit(reader)
		cfg := reader.s.cfg
		ns := cfg.Namespaces["default"]
		ns.Audit = 0
		cfg.Namespaces = map[string]Namespace{"default": ns}
		if _, err := reader.s.Apply(context.Background(), cfg); err != nil {
			t.Fatal(err)
		}
		for range 10 {
			reader.get("k", 0)
			time.Sleep(20 * time.Millisecond)
		}
		before.Configured = false
		if a := audit(reader); a != before {
			t.Errorf("without a share: %+v, want %+v", a, before)
		}
	})
}
