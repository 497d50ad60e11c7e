package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestNamedMustBeHeard: an answer that names a member that is considered dead here
// grants nothing yet. That member may have come back, and may be asking others.
func TestNamedMustBeHeard(t *testing.T) {
	const bound = time.Second
	var v kv.Version
	m := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Weight: 1, Bound: bound, Detection: 3 * bound / 2, Bootstrap: true,
		Stamp: func() kv.Version { v++; return v }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, time.Hour)
	b := kv.Process{Node: "b", Epoch: 1}
	now := time.Hour
	m.Seen(now, b, 1, 1, true)
	m.Leased(now, b, now)
	if !m.knows([]kv.Process{b}) {
		t.Error("a member of the ring is not known")
	}
	m.Missing(now, b.Node)
	m.Tick(now + 2*bound)
	if !m.members[b.Node].dead {
		t.Fatal("b is not considered dead")
	}
	if m.knows([]kv.Process{b}) {
		t.Error("a process that is considered dead here, and named as in, is passed over")
	}
	m.Left(now+2*bound, b)
	if !m.knows([]kv.Process{b}) {
		t.Error("a process that has said goodbye is waited for")
	}
}
