package ownership

import (
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestOneOwnerComing runs clusters whose links are cut, and whose nodes crash, pause and
// leave, while they come in. A process that has known others is then gone, so what it has
// told them counts less.
func TestOneOwnerComing(t *testing.T) {
	testenv.Takes(t, time.Second)
	first, runs := firstSeed(t), *simRuns*10
	for seed := first; seed < first+uint64(runs); seed++ {
		s := newSim(t, seed, 3+int(seed%2))
		s.watch()
		spread := []time.Duration{time.Millisecond, 100 * time.Millisecond, 2 * time.Second}[s.rnd.IntN(3)]
		for _, n := range s.nodes {
			s.after(s.upTo(spread), func() { n.start(false) })
		}
		for range 1 + s.rnd.IntN(2) {
			a, b := s.rnd.IntN(len(s.nodes)), s.rnd.IntN(len(s.nodes))
			both, at := s.rnd.IntN(3) > 0, s.upTo(4*time.Second)
			s.after(at, func() { s.cut[[2]int{a, b}], s.cut[[2]int{b, a}] = true, both })
			s.after(at+s.upTo(8*time.Second), func() { delete(s.cut, [2]int{a, b}); delete(s.cut, [2]int{b, a}) })
		}
		for range s.rnd.IntN(4) {
			n, at := s.nodes[s.rnd.IntN(len(s.nodes))], s.upTo(8*time.Second)
			switch s.rnd.IntN(3) {
			case 0:
				s.after(at, func() { n.restart(300 * time.Millisecond) })
			case 1:
				s.after(at, func() { n.pause(); s.after(s.upTo(2*time.Second), n.resume) })
			case 2:
				s.after(at, func() { n.run(n.epoch, func() { n.m.Leave(n.now()) }) })
				s.after(at+s.upTo(simBound), func() { n.run(n.epoch, func() { n.m.Stay(n.now()) }) })
			}
		}
		s.until(time.Hour + 13*time.Second)
		clear(s.cut)
		s.until(time.Hour + 30*time.Second)
		if err := s.settled(); err != nil {
			t.Fatalf("seed %d: 17 s after the faults: %v", seed, err)
		}
	}
}

// restart ends a node that runs, and starts it again at once.
func (n *simNode) restart(most time.Duration) {
	if n.running {
		n.crash()
		n.s.after(n.s.upTo(most), func() { n.start(false) })
	}
}

// TestRelayRestarts: the link between two of three nodes is cut, and the third, which names
// each to the other, restarts as they come in. Then it has forgotten both.
func TestRelayRestarts(t *testing.T) {
	testenv.Takes(t, time.Second)
	first, runs := firstSeed(t), *simRuns*50
	for seed := first; seed < first+uint64(runs); seed++ {
		s := newSim(t, seed, 3)
		for _, n := range s.nodes {
			s.after(s.upTo(100*time.Millisecond), func() { n.start(false) })
		}
		p := s.rnd.Perm(3)
		s.cut[[2]int{p[0], p[1]}], s.cut[[2]int{p[1], p[0]}] = true, true
		s.after(1500*time.Millisecond+s.upTo(1500*time.Millisecond), func() {
			s.nodes[p[2]].restart(250 * time.Millisecond)
		})
		s.until(time.Hour + 8*time.Second)
	}
}

// TestBlockedAsTheyComeIn: from 10 ms before two nodes come in, neither can poll the other,
// and gossip passes. One of the two goes out, however long that lasts.
func TestBlockedAsTheyComeIn(t *testing.T) {
	s := newSim(t, 1, 2)
	s.plain = true
	for _, n := range s.nodes {
		n.rate = 0
		n.start(false)
	}
	s.until(time.Hour + 1490*time.Millisecond)
	s.unpolled = [2]int{0, 1}
	s.until(time.Hour + 20*time.Second)
	if a, b := s.nodes[0].m, s.nodes[1].m; !a.In() || b.In() || a.Unended() != s.partitions {
		t.Errorf("in: %v and %v; a owns %d of %d", a.In(), b.In(), a.Unended(), s.partitions)
	}
	s.unpolled = [2]int{}
	s.until(time.Hour + 30*time.Second)
	if err := s.settled(); err != nil {
		t.Error(err)
	}
}

// two is a node whose only other member, b, is out. It polls b every B/4.
type two struct {
	*Machine
	t   *testing.T
	now time.Duration
	b   kv.Process
}

func newTwo(t *testing.T) *two {
	return &two{newMachine("a"), t, time.Hour, kv.Process{Node: "b", Epoch: 1}}
}

// polled says that b has answered a poll, which said that a is in a state.
func (w *two) polled(said uint64) {
	w.Polled(w.now, w.b, w.now, said, &wire.Poll{State: 1, Joined: true, Weight: 1})
	w.Leased(w.now, w.b, w.now)
}

// comesIn polls b until a is in.
func (w *two) comesIn() {
	w.t.Helper()
	for range 30 {
		if w.now += 250 * time.Millisecond; !w.In() {
			w.polled(w.State())
		}
		if w.In() {
			return
		}
	}
	w.t.Fatal("a does not come in")
}

// beginsWithin says whether a begins to own something within a time.
func (w *two) beginsWithin(d time.Duration) bool {
	for end := w.now + d; w.now < end; w.now += 10 * time.Millisecond {
		w.Tick(w.now)
		for _, a := range w.TakeActions() {
			if _, ok := a.(Begun); ok {
				return true
			}
		}
	}
	return false
}

// TestToldByContent: a poll whose body was made while this node was out has not told that
// it is in, whatever the clocks say.
func TestToldByContent(t *testing.T) {
	w := newTwo(t)
	w.comesIn()
	w.polled(w.State() - 1)
	if w.beginsWithin(2 * time.Second) {
		t.Error("a begins, and b was told that it is out")
	}
	if !w.beginsWithin(time.Second) {
		t.Error("b, which answers no poll, is waited for without end")
	}
}

// TestToldAgain: a node that comes in again must tell so again.
func TestToldAgain(t *testing.T) {
	w := newTwo(t)
	w.comesIn()
	w.polled(w.State())
	if !w.beginsWithin(1100 * time.Millisecond) {
		t.Fatal("a does not begin once b was told, and answers no more")
	}
	w.Pause(w.now)
	w.comesIn()
	if w.beginsWithin(2 * time.Second) {
		t.Error("a has come in again, and begins before b was told")
	}
}

// TestRefusedIsNotWaitedFor: two nodes that refuse each other do not wait for each other,
// unless one was in.
func TestRefusedIsNotWaitedFor(t *testing.T) {
	for _, c := range []struct{ refused, wasIn, begins bool }{{false, false, false}, {true, false, true}, {true, true, false}} {
		w := newTwo(t)
		w.comesIn()
		stranger := kv.Process{Node: "c", Epoch: 1}
		w.Seen(w.now, stranger, 0, 1, c.wasIn)
		w.Seen(w.now, stranger, 0, 1, false)
		w.Refused(stranger, c.refused)
		w.polled(w.State())
		if got := w.beginsWithin(2 * time.Second); got != c.begins {
			t.Errorf("%+v: begins: %v", c, got)
		}
	}
}

// TestRestartedIsAsked: a new process counts from its first answer to a poll, also before
// there is a lease on it.
func TestRestartedIsAsked(t *testing.T) {
	w := newTwo(t)
	w.comesIn()
	w.b.Epoch++
	w.Seen(w.now, w.b, 0, 1, false)
	w.Polled(w.now, w.b, w.now, w.State(), &wire.Poll{State: 1, Weight: 1})
	if w.beginsWithin(900 * time.Millisecond) {
		t.Error("a begins without the answer of the new process")
	}
}

// TestRefusedAndRestarted: a node that is out waits once for a host that is refused, however
// often that is restarted. For one that is not refused it waits each time.
func TestRefusedAndRestarted(t *testing.T) {
	for _, refused := range []bool{true, false} {
		w := newTwo(t)
		stranger := kv.Process{Node: "c", Epoch: 1}
		for end := w.now + 20*time.Second; w.now < end && !w.In(); w.now += 100 * time.Millisecond {
			if w.now%time.Second == 0 {
				stranger.Epoch++
			}
			w.Seen(w.now, stranger, 0, 1, false)
			w.Refused(stranger, refused)
			w.Tick(w.now)
		}
		if w.In() != refused {
			t.Errorf("refused %v: in: %v", refused, w.In())
		}
	}
}

// TestHopes: a node that gives up what it owns waits for a process that is about to join or is in, and not for one
// that has been in and is not any more, has no weight, or is dead.
func TestHopes(t *testing.T) {
	c := kv.Process{Node: "c", Epoch: 1}
	for _, tc := range []struct {
		name  string
		do    func(w *two)
		hopes bool
	}{
		{"none", func(w *two) {}, false},
		{"about to join", func(w *two) { w.Seen(w.now, c, 0, 1, false) }, true},
		{"about to join, and dead", func(w *two) { w.Seen(w.now, c, 0, 1, false); w.Left(w.now, c) }, false},
		{"leaves", func(w *two) { w.Seen(w.now, c, 0, 1, true) }, false},
		{"in", func(w *two) { w.comesIn() }, true},
		{"in, and gone", func(w *two) { w.comesIn(); w.Left(w.now, w.b) }, false},
	} {
		w := newTwo(t)
		if tc.do(w); w.Hopes() != tc.hopes {
			t.Errorf("%s: %v, want %v", tc.name, w.Hopes(), tc.hopes)
		}
	}
}
