//go:build failpoint

package hosts

import (
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestFailpointEvictedWhilePublished evicts a value that is about to be published, and fills
// its key anew: the older value must not be published after that.
func TestFailpointEvictedWhilePublished(t *testing.T) {
	withNodes(t, 2, nil, Namespace{Quota: 256 << 10}, func(w *world) {
		const key = "k"
		w.shareMemory()
		v := w.ownerOf(key)
		k := &vkey{name: []byte(key)}
		is(t, "SET", v.raw(wire.Request{Op: wire.OpSet, Key: k.name, Value: []byte("first")}), wire.OK, "")
		w.readToShare(v.s, k, 1) // marks it
		filled := false
		failpoint.Do(failpoint.ValueRead, func() {
			filled = true
			w.evict([]string{key})
			l := v.raw(wire.Request{Op: wire.OpLease, Key: k.name})
			is(t, "FILL", v.raw(wire.Request{Op: wire.OpFill, Key: k.name, Token: l.Token, Value: []byte("second")}), wire.OK, "")
		})
		w.readToShare(v.s, k, 1)
		if !filled {
			t.Fatal("the point was not met")
		}
		if got := v.shared(key); got == "first" {
			t.Errorf("after the FILL the shared memory has %q", got)
		}
		is(t, "over the socket", v.get(key, 0), wire.OK, "second")
	})
}
