package sidecar

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/strike"
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

// maxUnsettled bounds the writes of a namespace that are not settled: a goroutine
// and a key each.
const maxUnsettled = 1024

// unsettles counts a write that is not settled; settle follows. It is called in the
// write's turn.
func (t *through) unsettles() {
	t.unsettled.Add(1)
	t.wg.Add(1)
}

// busy says whether writes are under way, or not settled.
func (t *through) busy() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.keys) > 0 || t.unsettled.Load() > 0
}

// overtake is told of a late write of a key, before the key is deleted for it.
func (t *through) overtake(h kv.Hash) {
	if t == nil || strike.Out(strike.Overtaken) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if w := t.keys[h]; w != nil {
		w.overtaken = true
	}
}

// isOvertaken says whether the write whose turn it is must not be stored. It is
// asked after it has been: so either the late write's deletion removes it, or this.
func (t *through) isOvertaken(h kv.Hash) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.keys[h].overtaken
}
