package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func newMachine(self string) *Machine {
	return New(Config{
		Self: kv.Process{Node: kv.NodeID(self), Epoch: 1}, Weight: 1, Bound: time.Second, Detection: 1500 * time.Millisecond, Partitions: 16,
		Stamp: func() kv.Version { return 1 }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, time.Hour)
}

// TestForget checks that a member is forgotten only once it is considered dead, which
// takes gossip's word and the detection time of silence, and then only after the
// given silence.
func TestForget(t *testing.T) {
	m, b := newMachine("a"), kv.Process{Node: "b", Epoch: 1}
	now := time.Hour + time.Second
	forgets := func(silence time.Duration, want bool, when string) {
		t.Helper()
		if got := m.Forget(now, "b", silence); got != want {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	forgets(0, true, "unknown")
	m.Seen(now, b, 1, 1, true)
	forgets(0, false, "live")
	now += time.Hour
	m.Tick(now)
	forgets(0, false, "silent, and gossip hears it")
	m.Missing(now, "b")
	m.PolledBy(now, b, &wire.Poll{})
	forgets(0, false, "missing, and heard just now")
	now += 1499 * time.Millisecond
	m.Tick(now)
	forgets(0, false, "silent for less than the detection time")
	now += time.Millisecond
	m.Tick(now)
	forgets(time.Minute, false, "dead, and silent for less than is asked for")
	now += time.Minute
	forgets(time.Minute, true, "silent for long enough")
	if _, known := m.members["b"]; known {
		t.Error("it is known still")
	}
	m.Seen(now, b, 1, 1, true)
	if o := m.members["b"]; o == nil || o.dead || o.inRing || m.leased(o) {
		t.Errorf("the same process, heard again: %+v", o)
	}
}

// TestGoneAreBounded checks that gone processes are remembered up to a bound, the
// last ones.
func TestGoneAreBounded(t *testing.T) {
	m := newMachine("a")
	id := func(i int) kv.Process { return kv.Process{Node: "b", Epoch: kv.Epoch(i)} }
	for i := range 3 * maxGone {
		m.Left(time.Hour+time.Duration(i)*time.Second, id(i))
	}
	if len(m.gone) != maxGone || m.gone.has(id(2*maxGone-1)) || !m.gone.has(id(2*maxGone)) || !m.gone.has(id(3*maxGone-1)) {
		t.Errorf("%d are remembered, the oldest of the last %d: %v", len(m.gone), maxGone, m.gone.has(id(2*maxGone)))
	}
}
