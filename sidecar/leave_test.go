package sidecar

import (
	"testing"
	"time"
)

// A host that holds partitions without entries has nothing to hand over, and
// nothing to wait for.
func TestLeaveOfTheEmpty(t *testing.T) {
	a := startHost(t, "a")
	b := startHost(t, "b", a.node.GossipAddress())
	settled(t, a, b)
	begun := time.Now()
	b.leave()
	// It gives its entries up to 2 B to be pulled, were there any.
	if took := time.Since(begun); took > 3*a.node.Bound()/2 {
		t.Errorf("it took %v to leave", took)
	}
}
