package faults

import (
	"math/rand/v2"
	"sync"
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
		testenv.Must(t, err)
		if c := st.Cluster; c.Pauses == 0 || time.Duration(c.StoppedMS)*time.Millisecond < 7*g.bound {
			t.Errorf("%s has found %d pauses, and that it did not run for %d ms", n.spec.Node, c.Pauses, c.StoppedMS)
		}
	}
	l.check(nil)
}
