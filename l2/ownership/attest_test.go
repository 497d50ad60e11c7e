package ownership

import (
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestAttested: a member that another member attests as in counts here too, although
// nothing has come from it. It is told once, and again if it has changed. If gossip
// does not hear it either, it is considered dead after its silence.
func TestAttested(t *testing.T) {
	now := time.Hour
	a, b, c := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "c", Epoch: 1}
	m, o := newMachine("a"), newMachine("b")
	exchange := func() {
		info := o.PollFor(a)
		m.Polled(now, b, now, m.State(), info)
		o.PolledBy(now, a, m.PollFor(b))
	}
	o.PolledBy(now, a, m.PollFor(b))
	o.Polled(now, c, now, o.State(), &wire.Poll{State: 1, Joined: true, In: true, Weight: 1})
	first := o.PollFor(a)
	if !slices.Contains(first.Others, wire.Standing{Process: c, State: 1, Weight: 1, In: true}) {
		t.Fatalf("it tells %v", first.Others)
	}
	exchange()
	exchange() // each has heard of the other now
	if got := m.members["c"]; got == nil || !got.in || !got.live() {
		t.Fatalf("c is %+v", got)
	}
	if again := o.PollFor(a); len(again.Others) > 0 {
		t.Errorf("it tells again: %v", again.Others)
	}
	for _, s := range m.PollFor(b).Others {
		if s.Process == c {
			t.Errorf("it attests a process that it has not heard: %v", s)
		}
	}
	o.Polled(now, c, now, o.State(), &wire.Poll{State: 2, Joined: true, Weight: 1}) // c has gone out
	exchange()
	if m.members["c"].in {
		t.Error("c is in, and another member has heard that it is out")
	}
	o.Polled(now, c, now, o.State(), &wire.Poll{State: 3, Joined: true, In: true, Weight: 2})
	if exchange(); !m.members["c"].in || m.members["c"].weight != 2 {
		t.Error("c is out, and another member has heard that it is in")
	}
	o.PolledBy(now, c, &wire.Poll{State: 2, Joined: true, Weight: 1}) // late
	if exchange(); m.members["c"].weight != 2 {
		t.Error("old word counts")
	}
	now += m.cfg.Detection
	m.PolledBy(now, b, o.PollFor(a))
	m.Tick(now)
	if m.members["c"].live() {
		t.Error("c is not considered dead")
	}
	m.PolledBy(now, b, first) // late
	if m.members["c"].live() {
		t.Error("old word has made it live")
	}
}

// TestRumour: rumours keep a node from beginning alone, for a while.
func TestRumour(t *testing.T) {
	now := time.Hour
	m := newMachine("a")
	begins := func(rumour bool) time.Duration {
		for d := time.Duration(0); d < 20*m.cfg.Detection; d += m.cfg.Bound / 16 {
			if rumour {
				m.Rumour(now + d)
			}
			if m.Tick(now + d); m.In() {
				return d
			}
		}
		return 0
	}
	if d := begins(true); d < rumourFor*m.cfg.Detection || d > (rumourFor+2)*m.cfg.Detection {
		t.Errorf("it begins after %v", d)
	}
	m = newMachine("a")
	if d := begins(false); d != m.cfg.Detection {
		t.Errorf("without rumours it begins after %v", d)
	}
}
