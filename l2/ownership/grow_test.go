package ownership

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestRingGrowsTogether: if many members come at the same time, the first ones come
// into the ring at once, and all others together a tick later.
func TestRingGrowsTogether(t *testing.T) {
	const others = 40
	now := time.Hour
	m := New(Config{
		Self: kv.Process{Node: "self", Epoch: 1}, Weight: 1, Bound: simBound, Detection: simDetection, Partitions: simPartitions,
		Stamp: func() kv.Version { return 1 }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, now)
	now += simBound // so the ring did not grow within the last tick
	rings := 0
	count := func() {
		for _, a := range m.TakeActions() {
			if _, ok := a.(RingChanged); ok {
				rings++
			}
		}
	}
	for i := range others {
		id := kv.Process{Node: kv.NodeID(fmt.Sprint("n", i)), Epoch: 1}
		m.Polled(now, id, now, m.State(), &wire.Poll{State: 1, Joined: true, In: true, Weight: 1})
		m.Leased(now, id, now)
	}
	count()
	if got := len(m.Entered()); got != growAtOnce || rings != growAtOnce {
		t.Errorf("at once %d came into the ring, in %d rings; want %d in as many", got, rings, growAtOnce)
	}
	m.Tick(now + simBound/growEvery)
	count()
	if got := len(m.Entered()); got != others || rings != growAtOnce+1 {
		t.Errorf("a tick later %d are in the ring, after %d rings; want %d after %d", got, rings, others, growAtOnce+1)
	}
}
