package faults

import (
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// givenUp is the timeout of the apps that give their writes up.
const givenUp = 300 * time.Millisecond * slowness

// dial connects one more app.
func (n *node) dial(timeout time.Duration) *client.Client {
	n.g.t.Helper()
	app, err := client.Dial(n.g.t.Context(), client.Config{Socket: n.spec.Socket, DialTimeout: testenv.Patience, RequestTimeout: timeout, Conns: 1})
	testenv.Must(n.g.t, err)
	n.g.t.Cleanup(func() { app.Close() })
	return app
}

// atOnce calls f for each key concurrently.
func atOnce(keys []string, f func(key string)) {
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() { f(k) })
	}
	wg.Wait()
}

// sets stores a value under each key. The writes must succeed if ok is true, and fail
// otherwise.
func sets(t *testing.T, app *client.Client, keys []string, value string, ok bool) {
	atOnce(keys, func(key string) {
		if _, err := app.Set(t.Context(), key, []byte(value), cachesidecar.SetOptions{}); (err == nil) != ok {
			t.Errorf("SET %s %s: %v, want it done: %v", key, value, err, ok)
		}
	})
}

// TestProcessLateWrites stops a sidecar while writes wait in its sockets, and their apps
// (its own and other hosts') give them up. When it continues, it reads them after newer
// writes that it has acknowledged.
func TestProcessLateWrites(t *testing.T) {
	scenario(t, 5*time.Second)
	g := newGroup(t, 3*fast, 3) // long enough that its ownership lasts
	g.start(g.nodes)
	n := g.nodes[1]
	keys := g.ownedBy(n, 60)
	own, others, patient := n.dial(givenUp), g.nodes[0].dial(givenUp), n.dial(testenv.Patience)
	sets(t, patient, keys, "first", true)
	n.pause()
	var newer sync.WaitGroup
	// PING makes its connection the first to be read.
	newer.Go(func() { _ = patient.Ping(t.Context()) })
	time.Sleep(givenUp / 10)
	var wg sync.WaitGroup
	wg.Go(func() { sets(t, own, keys[:30], "given up", false) })
	wg.Go(func() { sets(t, others, keys[30:], "given up", false) })
	wg.Wait()
	newer.Go(func() { sets(t, patient, keys, "newer", true) })
	time.Sleep(givenUp / 3)
	n.resume()
	newer.Wait()
	g.never(keys, "given up", time.Second)
	if late := g.overdue(); late < int64(len(keys)) {
		t.Errorf("%d writes were overdue, want %d%s", late, len(keys), g.stats())
	}
}

// TestLengthyProcessLateWritesElsewhere stops a sidecar for so long that other hosts own its
// keys. It takes them back with new values before it reads the old writes.
func TestLengthyProcessLateWritesElsewhere(t *testing.T) {
	scenario(t, 10*time.Second)
	g := newGroup(t, fast, 3)
	g.start(g.nodes)
	n := g.nodes[1]
	keys := g.ownedBy(n, 30)
	own := n.dial(4 * givenUp) // long enough to have the keys back
	sets(t, n.dial(testenv.Patience), keys, "first", true)
	n.pause()
	var wg sync.WaitGroup
	wg.Go(func() { sets(t, own, keys, "given up", false) })
	atOnce(keys, func(key string) {
		testenv.Succeeds(t, key+" to be taken over", func() error {
			_, err := g.nodes[0].app.Set(t.Context(), key, []byte("newer"), cachesidecar.SetOptions{})
			return err
		})
	})
	wg.Wait()
	n.resume()
	g.never(keys, "given up", 2*g.bound)
	if late := g.overdue(); late < int64(len(keys)) {
		t.Errorf("%d writes were overdue, want %d%s", late, len(keys), g.stats())
	}
}

// TestProcessWritesOfEndedApps lets apps end whose writes wait for a host to take their keys
// over: the app's own host, or another one. Other apps write half of the keys after that.
func TestProcessWritesOfEndedApps(t *testing.T) {
	scenario(t, 9*time.Second)
	g := newGroup(t, 2*fast, 4)
	g.start(g.nodes)
	leaves, silent := g.nodes[0], g.nodes[1]
	keys := g.ownedBy(leaves, 80)
	sets(t, leaves.dial(testenv.Patience), keys, "first", true)
	silent.pause() // it must be asked before another host takes partitions, until it counts as dead
	leaves.down()
	leaves.signal(syscall.SIGTERM)
	time.Sleep(g.bound / 8)
	var wg sync.WaitGroup
	var done sync.Map // keys whose writes did not wait
	apps := []*client.Client{g.nodes[2].dial(testenv.Patience), g.nodes[3].dial(testenv.Patience)}
	for _, app := range apps {
		for _, key := range keys {
			wg.Go(func() {
				if _, err := app.Set(t.Context(), key, []byte("ended"), cachesidecar.SetOptions{}); err == nil {
					done.Store(key, true)
				}
			})
		}
	}
	time.Sleep(g.bound / 4)
	for _, app := range apps {
		_ = app.Close()
	}
	wg.Wait()
	for i, n := range g.nodes[2:] {
		app := n.dial(g.bound / 2)
		wg.Go(func() {
			atOnce(keys[i*20:(i+1)*20], func(key string) {
				testenv.Succeeds(t, key+" to be taken over", func() error {
					_, err := app.Set(t.Context(), key, []byte("newer"), cachesidecar.SetOptions{})
					return err
				})
			})
		})
	}
	wg.Wait()
	silent.resume()
	leaves.wait()
	g.nodes = g.nodes[1:]
	keys = slices.DeleteFunc(keys, func(key string) bool { _, ok := done.Load(key); return ok })
	g.never(keys, "ended", g.bound/2)
	if n := g.overdue(); n == 0 {
		t.Errorf("no write waited when its app ended, of %d%s", len(keys), g.stats())
	}
}

// never fails the test if any node reads the value within the given time.
func (g *group) never(keys []string, value string, within time.Duration) {
	g.t.Helper()
	for begun := time.Now(); time.Since(begun) < within; time.Sleep(50 * time.Millisecond) {
		for _, n := range g.nodes {
			for _, key := range keys {
				if it, err := n.app.Get(g.t.Context(), key, cachesidecar.GetOptions{}); err == nil && string(it.Value) == value {
					g.t.Fatalf("%s reads %s as %q, %v after its sidecar went on", n.spec.Node, key, value, time.Since(begun))
				}
			}
		}
	}
}

// overdue returns how many writes all nodes have refused because their time was over.
func (g *group) overdue() (n int64) {
	g.t.Helper()
	for _, node := range g.nodes {
		s, err := node.app.Stats(testenv.Context(g.t))
		testenv.Must(g.t, err)
		n += s.Overdue
	}
	return n
}
