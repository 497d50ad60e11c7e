package namespaces

import (
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// A write-through may end when its key has gone to another host: this host has left, did
// not run for a while, or is assigned fewer keys. The owner at that time may have loaded
// what the origin had before the write. Such a write is unsettled until that owner, or a
// later one, has acknowledged that it has deleted the key, with the namespace's load
// barrier. The owner then
//
//	does not keep   loads from before, and loads within the barrier
//	does not store  its own write of the key, if one is under way: the origin may
//	                have done it before the late one
//
// The deletion is tried again until then, also while this host leaves. At most
// MaxUnsettled writes of a namespace, and those under way by then, wait like this;
// meanwhile no write begins.

// MaxUnsettled bounds the unsettled writes of a namespace. Each has a goroutine and a
// key.
const MaxUnsettled = 1024

// Unsettles counts a write that is not settled; the caller then settles it. It is called
// in the write's turn.
func (t *WriteThrough) Unsettles() {
	t.Unsettled.Add(1)
	t.Pending.Add(1)
}

// Busy reports whether writes are under way, or not settled.
func (t *WriteThrough) Busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.Keys) > 0 || t.Unsettled.Load() > 0
}

// SupersedeWrite notes a late write of a key. It is called before the key is deleted for that
// write. It may be called on nil.
func (t *WriteThrough) SupersedeWrite(h kv.Hash) {
	if t == nil || failpoint.Out(failpoint.Superseded) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.Keys[h]; w != nil {
		w.superseded = true
	}
}

// IsSuperseded reports whether the write in its turn must not be stored. It is called
// after the write has been stored: then either the deletion for the late write removes
// the value, or the caller does.
func (t *WriteThrough) IsSuperseded(h kv.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Keys[h].superseded
}
