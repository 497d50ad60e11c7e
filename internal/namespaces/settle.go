package namespaces

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
)

// A write through may end when its key has gone to another host: this one has left,
// did not run for a while, or takes a smaller part of the keys. Who holds the key by
// then may have loaded what the origin had before. Such a write is unsettled until
// that host, or one after it, has acknowledged that it has deleted the key, with the
// namespace's hold:
//
//	its loads     from before are not kept, nor those of the hold
//	its own write of the key, if one is under way, is not stored: the origin may
//	              have done it before the late one
//
// Each is tried again until then, also while this host leaves. At most maxUnsettled
// of a namespace, and those under way by then, wait so; meanwhile no write begins.

// MaxUnsettled bounds the writes of a namespace that are not settled: a goroutine
// and a key each.
const MaxUnsettled = 1024

// Unsettles counts a write that is not settled; settle follows. It is called in the
// write's turn.
func (t *WriteThrough) Unsettles() {
	t.Unsettled.Add(1)
	t.Pending.Add(1)
}

// Busy says whether writes are under way, or not settled.
func (t *WriteThrough) Busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.Keys) > 0 || t.Unsettled.Load() > 0
}

// Overtake is told of a late write of a key, before the key is deleted for it.
func (t *WriteThrough) Overtake(h kv.Hash) {
	if t == nil || failpoint.Out(failpoint.Overtaken) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.Keys[h]; w != nil {
		w.overtaken = true
	}
}

// IsOvertaken says whether the write whose turn it is must not be stored. It is
// asked after it has been: so either the late write's deletion removes it, or this.
func (t *WriteThrough) IsOvertaken(h kv.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Keys[h].overtaken
}
