package ownership

import (
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestAttested: a member that another member attests as in counts here too, although
// nothing has come from it. It is told once, and again if it has changed. If gossip
// does not hear it either, it is considered dead after its silence.
func TestAttested(t *testing.T) {
	now := time.Hour
	a, b, c := kv.Process{Node: "a", Epoch: 1}, kv.Process{Node: "b", Epoch: 1}, kv.Process{Node: "c", Epoch: 1}
	m, o := newMachine("a"), newMachine("b")
	exchange := func() {
		info := o.InfoFor(a)
		m.Polled(now, b, now, m.State(), info)
		o.PolledBy(now, a, m.InfoFor(b))
	}
	o.PolledBy(now, a, m.InfoFor(b))
	o.Polled(now, c, now, o.State(), Info{State: 1, Joined: true, In: true, Weight: 1})
	first := o.InfoFor(a)
	if !slices.Contains(first.Others, Standing{c, 1, 1, true}) {
		t.Fatalf("it tells %v", first.Others)
	}
	exchange()
	exchange() // each has heard of the other now
	if got := m.members["c"]; got == nil || !got.in || !got.live() {
		t.Fatalf("c is %+v", got)
	}
	if again := o.InfoFor(a); len(again.Others) > 0 {
		t.Errorf("it tells again: %v", again.Others)
	}
	for _, s := range m.InfoFor(b).Others {
		if s.ID == c {
			t.Errorf("it attests a process that it has not heard: %v", s)
		}
	}
	o.Polled(now, c, now, o.State(), Info{State: 2, Joined: true, Weight: 1}) // c has gone out
	exchange()
	if m.members["c"].in {
		t.Error("c is in, and another member has heard that it is out")
	}
	o.Polled(now, c, now, o.State(), Info{State: 3, Joined: true, In: true, Weight: 2})
	if exchange(); !m.members["c"].in || m.members["c"].weight != 2 {
		t.Error("c is out, and another member has heard that it is in")
	}
	o.PolledBy(now, c, Info{State: 2, Joined: true, Weight: 1}) // late
	if exchange(); m.members["c"].weight != 2 {
		t.Error("old word counts")
	}
	now += m.cfg.Detection
	m.PolledBy(now, b, o.InfoFor(a))
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
