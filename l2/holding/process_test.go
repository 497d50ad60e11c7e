package holding

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestLateWordOfAnEarlierProcess: what an earlier process of a name has sent, or
// others tell of it, arrives after its successor is known. It is nobody; once
// the successor is held for dead, it may be what it says.
func TestLateWordOfAnEarlierProcess(t *testing.T) {
	clock := kv.Version(0)
	m := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Bound: simBound, Detection: simDetection, Partitions: simPartitions,
		Stamp: func() kv.Version { clock++; return clock }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, time.Hour)
	earlier, later := kv.Process{Node: "b", Epoch: 7}, kv.Process{Node: "b", Epoch: 8}
	now := time.Hour
	is := func(what string, want kv.Process) {
		t.Helper()
		if got := m.members["b"].id; got != want {
			t.Errorf("%s: %v, want %v", what, got, want)
		}
		now += time.Millisecond
	}
	m.Seen(now, later, 1, 1, true)
	is("the first", later)
	m.PolledBy(now, earlier, Info{State: 9, Joined: true, In: true, Weight: 1})
	is("a late poll", later)
	m.Seen(now, earlier, 9, 1, true)
	is("late gossip", later)
	if a := m.Asked(now, earlier, Acquire{Ballot: &Ballot{9, earlier}, Partitions: kv.PartitionSet{1}}); !a.Granted.Empty() {
		t.Error("an earlier process was granted something")
	}
	is("a late ACQUIRE", later)
	m.Polled(now, later, now, Info{State: 2, Joined: true, In: true, Weight: 1})
	m.Leased(now, later, now)
	if !m.leased(m.members["b"]) {
		t.Error("the later one counts no more")
	}
	m.Missing(now, "b")
	now += simDetection
	m.Tick(now)
	m.Seen(now, earlier, 9, 1, true) // its clock was set back before it started
	is("after the death of the later one", earlier)
	m.Seen(now, later, 9, 1, true)
	is("late word of the dead", earlier)
}
