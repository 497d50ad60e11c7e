package sidecar

import (
	"testing"
	"time"
)

// A host that owns partitions without entries has nothing to hand over, and nothing to
// wait for.
func TestVirtualLeaveOfTheEmpty(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		begun := time.Now()
		w.nodes[1].leave()
		// With entries it would wait for up to 2 B until they are pulled.
		if took := time.Since(begun); took > w.bound {
			t.Errorf("it took %v to leave", took)
		}
	})
}
