package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestLateWordOfAnEarlierProcess: messages of an earlier process of a name, or word
// of it from other members, arrive after its successor is known. They count for
// nothing. Once the successor is considered dead, the earlier process may be what it
// says.
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
	m.PolledBy(now, earlier, &wire.Poll{State: 9, Joined: true, In: true, Weight: 1})
	is("a late poll", later)
	m.Seen(now, earlier, 9, 1, true)
	is("late gossip", later)
	if a := m.Asked(now, earlier, Acquire{Ballot: &kv.Ballot{Clock: 9, Process: earlier}, Partitions: kv.PartitionSet{1}}); !a.Granted.Empty() {
		t.Error("an earlier process was granted something")
	}
	is("a late ACQUIRE", later)
	m.Polled(now, later, now, m.State(), &wire.Poll{State: 2, Joined: true, In: true, Weight: 1})
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

// TestEarlierByItsClock: a process is started again at once, and its clock was set
// back meanwhile. Gossip hears it at the old process's address and reports no member
// missing. Once the old process has been silent for the detection time, it is
// considered dead.
func TestEarlierByItsClock(t *testing.T) {
	m := newMachine("a")
	old, present := kv.Process{Node: "b", Epoch: 8}, kv.Process{Node: "b", Epoch: 7}
	now := time.Hour
	m.Polled(now, old, now, m.State(), &wire.Poll{State: 2, Joined: true, In: true, Weight: 1})
	m.Seen(now, old, 0, 1, true)
	m.Seen(now, present, 0, 1, true)
	for range 8 {
		now += m.cfg.Detection / 4
		m.Tick(now)
		m.Polled(now, present, now, m.State(), &wire.Poll{State: 1, Joined: true, Weight: 1})
	}
	if o := m.members["b"]; o.id != present || !o.live() {
		t.Errorf("b is %v", o.id)
	}
}

// TestNamesakeGone: a process is replaced by another process of its name, and goes
// on. It counts for nothing while the other one lives. It counts again once the other
// one has left, or is considered dead.
func TestNamesakeGone(t *testing.T) {
	for _, leaves := range []bool{true, false} {
		m, first, other := newMachine("a"), kv.Process{Node: "b", Epoch: 7}, kv.Process{Node: "b", Epoch: 8}
		now, info := time.Hour, &wire.Poll{State: 1, Joined: true, Weight: 1}
		m.PolledBy(now, first, info)
		m.PolledBy(now, other, info)
		m.PolledBy(now, first, info)
		if o := m.members["b"]; o.id != other {
			t.Fatalf("b is %v", o.id)
		}
		if leaves {
			m.Left(now, other)
		} else {
			m.Missing(now, "b")
			now += m.cfg.Detection
			m.Tick(now)
		}
		m.Seen(now, first, 0, 1, false)
		if o := m.members["b"]; o != nil && o.id == first {
			t.Error("late word of it counts")
		}
		m.PolledBy(now, other, info) // late
		m.PolledBy(now, first, info)
		o := m.members["b"]
		if leaves && (o == nil || o.id != first) {
			t.Errorf("b is %+v", o)
		}
		now += m.cfg.Detection
		m.Missing(now, "b")
		m.Tick(now)
		m.PolledBy(now, first, info)
		if o := m.members["b"]; o == nil || o.id != first || !o.live() {
			t.Errorf("leaves %v: b is %+v", leaves, o)
		}
	}
}
