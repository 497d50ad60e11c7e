package ownership

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// stutter stops a node again and again, each time for less than B. In the moments
// between, the node does some of the waiting work, in any order, and often none of
// it.
func (n *simNode) stutter(from, to float64, stops int) {
	s := n.s
	if stops == 0 { // what still waits is done
		n.stopped = true
		n.resume()
		return
	}
	n.pause()
	of := float64(simBound)
	s.after(time.Duration(from*of)+s.upTo(time.Duration((to-from)*of)), func() {
		if !n.stopped {
			return
		}
		n.stopped = false
		n.run(n.epoch, func() {}) // a read comes at once
		s.rnd.Shuffle(len(n.pending), func(i, j int) { n.pending[i], n.pending[j] = n.pending[j], n.pending[i] })
		done := 0
		if s.rnd.IntN(2) == 0 {
			done = s.rnd.IntN(len(n.pending) + 1)
		}
		now := n.pending[:done]
		n.pending = n.pending[done:]
		for _, f := range now {
			n.run(n.epoch, f)
		}
		epoch, waits := n.epoch, n.pending
		n.pending = nil
		s.after(100*time.Microsecond+s.upTo(900*time.Microsecond), func() {
			if n.epoch == epoch && n.running {
				n.pending = append(waits, n.pending...)
				n.stutter(from, to, stops-1)
			}
		})
	})
}

// stutters makes some nodes stutter.
func stutters(s *sim) {
	for range 4 {
		n, from := s.nodes[s.rnd.IntN(len(s.nodes))], 0.05+0.9*s.rnd.Float64()
		stops := 4 + s.rnd.IntN(4)
		s.after(s.upTo(18*time.Second), func() { n.stutter(from, min(0.99, from+0.2), stops) })
	}
}

// TestStallsAddUp checks how much of some stalls counts, and how much of them was a stop.
func TestStallsAddUp(t *testing.T) {
	const b = 64 * time.Second // a look every second
	at := func(lengths ...time.Duration) (list []stall) {
		now := time.Hour
		for _, d := range lengths {
			now += time.Second + d*time.Second
			list = append(list, stall{now, d * time.Second})
		}
		return list
	}
	for _, c := range []struct {
		name   string
		stalls []stall
		want   Stoppage
		count  time.Duration
	}{
		{"one", at(60), Stoppage{60 * time.Second, 1, 96 * time.Second}, 59 * time.Second},
		{"two, of which the first began long ago", at(62, 62), Stoppage{95 * time.Second, 2, 96 * time.Second}, 93 * time.Second},
		{"many", at(20, 20, 20, 20), Stoppage{80 * time.Second, 4, 96 * time.Second}, 76 * time.Second},
		{"one that is over for longer", append(at(60), stall{time.Hour + 157*time.Second, 5 * time.Second}), Stoppage{5 * time.Second, 1, 96 * time.Second}, 4 * time.Second},
		{"less than a look of one in the window", append(at(60), stall{time.Hour + 156*time.Second + time.Second/2, 5 * time.Second}), Stoppage{5500 * time.Millisecond, 2, 96 * time.Second}, 4 * time.Second},
	} {
		s := stalls{bound: b, window: 96 * time.Second}
		for _, g := range c.stalls {
			s.add(g.end, g.length)
		}
		if got, count := s.sum(); got != c.want || count != c.count {
			t.Errorf("%s: %+v, of which %v counts, want %+v and %v", c.name, got, count, c.want, c.count)
		}
		if s.clear(); len(s.list) != 0 {
			t.Error("something is left")
		}
	}
	s := stalls{bound: b, window: 96 * time.Second}
	for i := range time.Duration(1000) { // as many as can be in one window
		s.add(time.Hour+i*b/StallAbove, b/StallAbove)
	}
	if n := len(s.list); n > 24 {
		t.Errorf("%d stalls are kept", n)
	}
}

// TestStoppageWords checks how a log line says how long the process did not run.
func TestStoppageWords(t *testing.T) {
	for want, s := range map[string]Stoppage{
		"4.4 s":                               {4400 * time.Millisecond, 1, 0},
		"2.1 s of the last 3 s, in 4 gaps":    {2100 * time.Millisecond, 4, 3 * time.Second},
		"0.5 s of the last 0.75 s, in 2 gaps": {500 * time.Millisecond, 2, 750 * time.Millisecond},
	} {
		if got := s.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// stuttering returns a machine that has met b, and takes part with it.
func stuttering(at time.Duration) (*Machine, kv.Process) {
	clock := kv.Version(0)
	m := New(Config{
		Self: kv.Process{Node: "a", Epoch: 1}, Weight: 1, Bound: simBound, Detection: simDetection, Partitions: simPartitions, Table: smallTable,
		Stamp: func() kv.Version { clock++; return clock }, Rand: rand.New(rand.NewPCG(1, 1)),
	}, at)
	b := kv.Process{Node: "b", Epoch: 2}
	m.Seen(at, b, 1, 1, true)
	return m, b
}

// TestBusyHostGoesOn: stalls that add up to more than B are no pause if all members
// have answered polls lately. Nor are stalls that do not add up to B.
func TestBusyHostGoesOn(t *testing.T) { busyHostGoesOn(t.Errorf) }

func busyHostGoesOn(errorf func(format string, args ...any)) {
	for _, c := range []struct {
		name      string
		stop, run time.Duration
		polls     bool // are answered
		pauses    bool
	}{
		{"half the time, and answered", simBound * 45 / 100, simBound / 20, true, false},
		{"half the time", simBound * 45 / 100, simBound / 20, false, true},
		{"400 ms in every second, B = 2 s", simBound / 5, simBound * 3 / 10, false, false},
		{"400 ms in every second, B = 500 ms", simBound * 8 / 10, simBound * 12 / 10, false, false},
		{"a quota of half a processor, B = 500 ms", simBound / 10, simBound / 10, false, false},
		{"nearly always", simBound * 9 / 10, simBound / 1000, false, true},
	} {
		now := time.Hour
		m, b := stuttering(now)
		pauses := 0
		for range 100 {
			now += c.run
			if c.polls {
				m.Polled(now, b, now-time.Millisecond, m.State(), &wire.Poll{State: 2, Joined: true, In: true, Weight: 1})
			}
			now += c.stop
			if _, paused := m.Stall(now, c.stop); paused {
				pauses++
			}
		}
		if pauses > 0 != c.pauses {
			errorf("%s: %d pauses", c.name, pauses)
		}
	}
}

// TestSilenceCountsWhileRunning: a node that was stopped for most of the detection
// time has not heard others for that reason. It neither considers another node dead
// nor considers itself alone.
func TestSilenceCountsWhileRunning(t *testing.T) {
	now := time.Hour
	m, b := stuttering(now)
	m.Polled(now, b, now, m.State(), &wire.Poll{State: 2, Joined: false, In: true, Weight: 1})
	m.Missing(now, b.Node)
	const stop = simBound * 8 / 10
	now += stop
	if _, paused := m.Stall(now, stop); paused {
		t.Fatal("one stall of less than B is no pause")
	}
	for end := now - stop + simDetection; now < end; now += simBound / 16 {
		m.Tick(now)
	}
	if m.members[b.Node].dead || m.Joined() {
		t.Errorf("after %v of silence, of which it has run for %v: dead %v, joined %v", simDetection, simDetection-stop, m.members[b.Node].dead, m.Joined())
	}
	m.Tick(now + stop)
	if !m.members[b.Node].dead || !m.Joined() {
		t.Errorf("after %v in which it has run: dead %v, joined %v", simDetection, m.members[b.Node].dead, m.Joined())
	}
}

// turns stops two nodes one after the other, each for nearly B. The second node has
// not heard the first for nearly 2B, and for most of that time it did not run itself.
func turns(s *sim) {
	for at := time.Duration(0); at < 18*time.Second; at += 4 * time.Second {
		first := s.rnd.IntN(2)
		s.after(at+s.upTo(time.Second), func() {
			s.nodes[first].stutter(0.9, 0.99, 1)
			s.after(simBound*9/10, func() { s.nodes[1-first].stutter(0.9, 0.99, 1) })
		})
	}
}

// TestPausesAlone: a node that knows no other pauses too. Others, which were stopped as it
// began, may have heard of it, and taken it for dead.
func TestPausesAlone(t *testing.T) {
	m := newMachine("a")
	now := time.Hour + 2*time.Second
	if m.Tick(now); !m.In() {
		t.Fatal("a does not come in alone")
	}
	if _, paused := m.Stall(now+2*time.Second, 2*time.Second); !paused || m.In() || m.Unended() > 0 {
		t.Errorf("paused: %v, in: %v, %d partitions owned", paused, m.In(), m.Unended())
	}
}
