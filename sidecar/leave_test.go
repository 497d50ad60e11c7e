package sidecar

import (
	"testing"
	"time"
)

// A host that holds partitions without entries has nothing to hand over, and
// nothing to wait for.
func TestVirtualLeaveOfTheEmpty(t *testing.T) {
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		begun := time.Now()
		w.nodes[1].leave()
		// It gives its entries up to 2 B to be pulled, were there any.
		if took := time.Since(begun); took > w.bound {
			t.Errorf("it took %v to leave", took)
		}
	})
}
