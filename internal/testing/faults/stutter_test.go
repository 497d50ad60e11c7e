package faults

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/proctest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// These tests stop sidecars again and again, each time for less than the bound.

// between draws a random duration from a range.
func between(from, to time.Duration) time.Duration { return from + rand.N(to-from) }

// stutter stops a node's process several times, each time for a part of the bound between
// from and to, and lets it run for 0.1 to 1 ms in between. Apps do not rely on it. The
// requests of do are answered in such a moment, or in a later one.
func (n *node) stutter(stops int, from, to float64, do func()) {
	n.g.t.Helper()
	n.pause()
	of := float64(n.g.bound)
	var wg sync.WaitGroup
	for range stops {
		time.Sleep(between(time.Duration(from*of), time.Duration(to*of)))
		wg.Go(do)
		time.Sleep(time.Millisecond) // the requests wait in the socket
		n.signal(syscall.SIGCONT)
		for end := time.Now().Add(between(100*time.Microsecond, time.Millisecond)); time.Now().Before(end); {
		}
		proctest.Stop(n.g.t, n.cmd.Process)
	}
	n.resume()
	wg.Wait()
}

// someGets reads some keys through a node at once.
func (l *load) someGets(n *node) {
	var wg sync.WaitGroup
	for _, key := range someKeys(20) {
		wg.Go(func() { l.get(n, key, cachesidecar.GetOptions{}) })
	}
	wg.Wait()
}

// TestLengthyProcessStutter lets a sidecar run only for moments, in which no other host hears
// it. The others take over its partitions and overwrite its keys. Its reads are then no
// older than the bound.
func TestLengthyProcessStutter(t *testing.T) {
	scenario(t, 45*time.Second)
	g := newGroup(t, fast, 3)
	g.start(g.nodes)
	l := g.work(false)
	rounds := 3
	if *long {
		rounds = 30
	}
	for round := range rounds {
		time.Sleep(time.Second)
		n := g.nodes[round%3]
		n.stutter(8, 0.955, 0.975, func() { l.someGets(n) })
		g.settle(n.spec.Node+" stuttered", time.Now())
		st, err := n.app.Stats(testenv.Context(t))
		if err != nil {
			t.Fatal(err)
		}
		if c := st.Cluster; c.Pauses == 0 || time.Duration(c.StoppedMS)*time.Millisecond < 7*g.bound {
			t.Errorf("%s has found %d pauses, and that it did not run for %d ms", n.spec.Node, c.Pauses, c.StoppedMS)
		}
	}
	l.check(nil)
}

// TestLengthyProcessStutterAndKill: a sidecar stutters while another one is killed.
func TestLengthyProcessStutterAndKill(t *testing.T) {
	scenario(t, 20*time.Second)
	g := newGroup(t, fast, 3)
	g.start(g.nodes)
	l := g.work(false)
	time.Sleep(time.Second)
	n, victim := g.nodes[0], g.nodes[1]
	var wg sync.WaitGroup
	wg.Go(func() {
		time.Sleep(between(0, 3*g.bound))
		victim.crash()
	})
	n.stutter(6, 0.5, 0.99, func() { l.someGets(n) })
	wg.Wait()
	g.settle("one stuttered, and another was killed", time.Now())
	victim.start()
	g.settle("that one is back", time.Now())
	l.check(nil)
}

// TestLengthyProcessBusy: sidecars that stop for a while in each second, as on a busy machine,
// give up no ownership and accept all writes. After a kill, writes resume as fast as
// usual.
func TestLengthyProcessBusy(t *testing.T) {
	for _, c := range []struct{ bound, gap time.Duration }{
		{2 * time.Second, 100 * time.Millisecond},
		{2 * time.Second, 400 * time.Millisecond},
		{500 * time.Millisecond, 100 * time.Millisecond},
	} {
		t.Run(fmt.Sprintf("%v of each second, bound %v", c.gap, c.bound), func(t *testing.T) {
			scenario(t, 25*time.Second)
			g := newGroup(t, 0, 3)
			g.bound = c.bound
			for _, n := range g.nodes {
				n.spec.MaxStaleness = c.bound
			}
			g.start(g.nodes)
			l := g.work(false)
			stop := g.busy(c.gap)
			time.Sleep(time.Second)
			for try := range 4 { // the machine may stall as long by itself
				before := g.given()
				still := worstGap(8 * time.Second)
				after := g.given()
				if before == after {
					break
				}
				t.Logf("%+v after %+v, while the machine stood still for up to %v", after, before, still)
				if still < c.bound/16 {
					t.Errorf("something has ended")
				}
				if try == 3 {
					t.Log("the machine is too busy to tell")
				}
			}
			victim := g.nodes[2]
			keys := g.ownedBy(victim, 100)
			g.resumes(keys, "kill -9", func() {
				stop(2)
				victim.crash()
			})
			stop(0)
			stop(1)
			l.check(nil)
		})
	}
}

// busy stops each node for a while in every second, until stop is called for it.
func (g *group) busy(gap time.Duration) (stop func(node int)) {
	over := make([]atomic.Bool, len(g.nodes))
	done := make([]chan struct{}, len(g.nodes))
	for i, n := range g.nodes {
		done[i] = make(chan struct{})
		go func() { // ends with stop, which the cleanup calls too
			defer close(done[i])
			time.Sleep(between(0, time.Second))
			for !over[i].Load() {
				n.signal(syscall.SIGSTOP)
				time.Sleep(gap)
				n.signal(syscall.SIGCONT)
				time.Sleep(time.Second - gap)
			}
		}()
	}
	stop = func(node int) {
		over[node].Store(true)
		<-done[node]
	}
	g.t.Cleanup(func() {
		for i := range g.nodes {
			stop(i)
		}
	})
	return stop
}

// given returns the living nodes' counts of pauses and of ended ownership.
func (g *group) given() (sum struct{ pauses, ended int64 }) {
	g.t.Helper()
	for _, n := range g.living() {
		st, err := n.app.Stats(testenv.Context(g.t))
		if err != nil {
			g.t.Fatal(err)
		}
		sum.pauses += st.Cluster.Pauses
		sum.ended += st.Cluster.Ended
	}
	return sum
}

// worstGap waits for d, and returns the longest time in which this process did not run.
func worstGap(d time.Duration) (worst time.Duration) {
	last := time.Now()
	for end := last.Add(d); last.Before(end); {
		time.Sleep(time.Millisecond)
		now := time.Now()
		worst = max(worst, now.Sub(last))
		last = now
	}
	return worst
}
