package faults

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// soakRound is the longest duration of one history.
const soakRound = 2 * time.Minute

// TestNetnsSoak causes random faults on five hosts, also several at once, for the time of
// -faults.for. Under policy consistent it also cuts hosts off from all others, and the
// bound must hold anyway. Policy available does not promise the bound in such a split, so
// there the test cuts single links only.
func TestNetnsSoak(t *testing.T) {
	if *soak == 0 {
		t.Skip("skipped without -faults.for=TIME")
	}
	for left := *soak; left > 0; left -= soakRound {
		for _, policy := range []string{"available", "consistent"} {
			t.Run(policy, func(t *testing.T) { soakFor(t, min(left, soakRound)/2, policy == "consistent") })
		}
	}
}

func soakFor(t *testing.T, d time.Duration, consistent bool) {
	const hosts = 5
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	l := newLab(t, hosts)
	g := l.newGroup(fast)
	if consistent {
		for _, n := range g.nodes {
			n.spec.Voters = []string{g.nodes[0].spec.Node, g.nodes[1].spec.Node, g.nodes[2].spec.Node}
		}
	}
	g.start(g.nodes)
	w, c := g.work(false), g.count()
	w.needs["flush"] = 3
	w.wg.Go(func() { w.flush(c) })
	var told []string
	some := func(most int) time.Duration { return time.Duration(rnd.IntN(most)) * time.Millisecond }
	for end := time.Now().Add(d); time.Now().Before(end); {
		i := rnd.IntN(hosts)
		n, o := g.nodes[i], (i+1+rnd.IntN(hosts-1))%hosts
		what := n.spec.Node
		begun := time.Now()
		switch rnd.IntN(7) {
		case 0:
			what += " restarts"
			n.leave()
			n.start()
		case 1:
			what += " is killed"
			n.crash()
			time.Sleep(some(5000))
			n.start()
		case 2:
			what += " is paused"
			n.pause()
			time.Sleep(some(6000))
			n.resume()
		case 3:
			what += " loses packets"
			l.rule(i, "INPUT", "-i", "eth0", "-m", "statistic", "--mode", "random", "--probability", "0.3", "-j", "DROP")
			time.Sleep(some(8000))
		case 4:
			what += " does not hear " + g.nodes[o].spec.Node
			l.rule(i, "INPUT", "-s", l.address(o), "-j", "DROP")
			if rnd.IntN(2) == 0 {
				l.rule(o, "INPUT", "-s", l.address(i), "-j", "DROP")
			}
			time.Sleep(some(8000))
		case 5:
			what += " stutters"
			from := 0.05 + 0.85*rnd.Float64()
			n.stutter(3+rnd.IntN(6), from, min(0.99, from+0.2), func() { w.someGets(n) })
		case 6:
			if !consistent {
				continue
			}
			what += " is cut off"
			l.rule(i, "INPUT", "-i", "eth0", "-j", "DROP")
			l.rule(i, "OUTPUT", "-o", "eth0", "-j", "DROP")
			time.Sleep(some(8000))
		}
		told = append(told, what)
		if rnd.IntN(3) == 0 {
			continue // the next fault comes on top
		}
		l.heal()
		g.settle(what, begun)
	}
	l.heal()
	g.settle("the end", time.Now())
	t.Log(strings.Join(told, "; "))
	w.check(nil)
	c.check()
}
