package hosts

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/race"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// inWorld runs a test with n nodes that have found each other, under load.
func inWorld(t *testing.T, seed uint64, n int, f func(w *world), voters ...string) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, n)
		w.voters = voters
		w.startAll()
		w.agreed(15 * time.Second)
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		w.load(ctx, &wg)
		f(w)
		time.Sleep(10 * time.Second)
		w.agreed(30 * time.Second)
		stop()
		wg.Wait()
		w.leaveAll()
		t.Logf("seed %d: %d hits, %d misses, %d writes failed, %v", seed, w.hits, w.misses, w.failed, w.seen)
		if w.hits < 1000 || w.seen["l1 hits"] == 0 || w.seen["joined"] == 0 {
			t.Errorf("too tame a run")
		}
	})
}

func usualRuns() int {
	if testenv.Long() {
		return 2
	}
	return 1
}

// virtually runs a scenario with several seeds. With voters the policy is consistent.
func virtually(t *testing.T, n int, f func(w *world), voters ...string) {
	t.Helper()
	seed := firstSeed()
	for i := range *virtualRuns {
		inWorld(t, seed+uint64(i), n, f, voters...)
	}
}

// A node does not run for so long that other nodes take its partitions and write to them.
// When it goes on it serves nothing from before, not even before it has heard from
// another node.
func TestVirtualPausedOwner(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 3)
		w.startAll()
		w.agreed(15 * time.Second)
		ctx := context.Background()
		a, b := w.nodes[0], w.nodes[1]
		key := func(i int) []byte { return fmt.Appendf(nil, "key%d", i) }
		const n = 300
		for i := range n {
			mustSet(t, a.s, string(key(i)), []byte("old"))
		}
		a.clock.freeze()
		w.net.Isolate(a.ip)
		time.Sleep(15 * time.Second)
		for i := range n {
			mustSet(t, b.s, string(key(i)), []byte("new"))
		}
		a.clock.thaw()
		for i := range n {
			if v, err := a.s.Get(ctx, "default", string(key(i)), cachesidecar.GetOptions{}); err == nil {
				t.Fatalf("key%d is %q on the host that was paused", i, v.Value)
			}
		}
		if p := a.s.telemetry.ClusterState().Pauses; p != 1 {
			t.Errorf("%d pauses were found, want 1", p)
		}
		w.net.Heal()
		time.Sleep(5 * time.Second)
		w.agreed(15 * time.Second)
		for i := range n {
			if v, err := a.s.Get(ctx, "default", string(key(i)), cachesidecar.GetOptions{}); err != nil || string(v.Value) != "new" {
				t.Fatalf("key%d is %q, %v after the host has come back", i, v.Value, err)
			}
		}
		w.leaveAll()
	})
}

// Links are cut for a while, one way or both ways, for less time than makes a silent node
// count as dead.
func TestLengthyVirtualCuts(t *testing.T) {
	testenv.Takes(t, 5*time.Second)
	t.Parallel()
	virtually(t, 5, func(w *world) {
		for range 15 {
			a, b := w.nodes[w.rnd.IntN(5)], w.nodes[w.rnd.IntN(5)]
			switch w.rnd.IntN(4) {
			case 0:
				w.net.Cut(a.ip, b.ip)
			case 1:
				w.net.CutOneWay(a.ip, b.ip)
			case 2:
				w.net.Isolate(a.ip)
			default:
				w.net.SetLoss(0.3)
			}
			time.Sleep(time.Duration(w.rnd.IntN(2500)) * time.Millisecond)
			w.net.Heal()
			w.net.SetLoss(0)
			time.Sleep(time.Duration(w.rnd.IntN(4000)) * time.Millisecond)
		}
	})
}

func TestLengthyVirtualQuiet(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	virtually(t, 3, func(w *world) { time.Sleep(20 * time.Second) })
}

// Nodes are killed, leave, are paused and come back, some of them at the same time.
func TestVirtualFaults(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	virtually(t, 5, func(w *world) {
		for range 12 {
			down := w.down()
			v := w.nodes[w.rnd.IntN(len(w.nodes))]
			switch op := w.rnd.IntN(10); {
			case len(down) > 1 || op < 3 && len(down) > 0:
				down[w.rnd.IntN(len(down))].start()
			case v.s == nil:
			case op < 5:
				v.kill()
				if w.rnd.IntN(2) == 0 {
					time.Sleep(time.Duration(w.rnd.IntN(300)) * time.Millisecond)
					v.start()
				}
			case op < 7:
				v.leave()
			default:
				v.pause(time.Duration(w.rnd.IntN(12000)) * time.Millisecond)
			}
			time.Sleep(time.Duration(w.rnd.IntN(6000)) * time.Millisecond)
		}
		w.startAll()
	})
}

// A hundred sidecars in one process find each other and agree. One of them dies, and the
// others continue.
func TestLengthyVirtualHundred(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	bubble.Test(t, func(t *testing.T) {
		n := *virtualMany
		if race.Enabled {
			n = min(n, 10)
		}
		w := newWorld(t, 1, n)
		began := time.Now()
		w.startAll()
		w.agreed(120 * time.Second)
		t.Logf("%d nodes hold all after %v", len(w.nodes), time.Since(began))
		began = time.Now()
		w.nodes[7].kill()
		w.agreed(60 * time.Second)
		t.Logf("and after %v without one that was killed", time.Since(began))
		for _, v := range w.nodes {
			if v.s != nil {
				v.kill()
			}
		}
		time.Sleep(30 * time.Second)
	})
}

// inQuietWorld runs a test with n nodes that have found each other, without any load
// except the test's own.
func inQuietWorld(t *testing.T, n int, f func(t *testing.T, w *world), voters ...string) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, n)
		w.voters = voters
		w.startAll()
		w.agreed(15 * time.Second)
		f(t, w)
		w.leaveAll()
	})
}

// setAll writes some keys through a node, and returns how many were stored.
func setAll(v *vnode, n int, value string) (stored int) {
	for i := range n {
		if _, err := v.s.Set(context.Background(), "default", string(testKeyOf(i)), []byte(value), cachesidecar.SetOptions{}); err == nil {
			stored++
		}
	}
	return stored
}

func testKeyOf(i int) []byte { return fmt.Appendf(nil, "key%d", i) }

// A split of 30 s under policy available: each side continues alone. After the split all
// nodes agree, and what is written then is read everywhere.
func TestVirtualSplit(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		const n = 200
		setAll(w.nodes[0], n, "before")
		left, right := w.nodes[:2], w.nodes[2:]
		for _, a := range left {
			for _, b := range right {
				w.net.Cut(a.ip, b.ip)
			}
		}
		time.Sleep(15 * time.Second)
		for _, side := range [][]*vnode{left, right} {
			if stored := setAll(side[0], n, "split"); stored != n {
				t.Errorf("a side of %d stored %d of %d", len(side), stored, n)
			}
		}
		time.Sleep(15 * time.Second)
		w.net.Heal()
		began := time.Now()
		time.Sleep(time.Second)
		w.agreed(60 * time.Second)
		t.Logf("all agree %v after the split", time.Since(began))
		if stored := setAll(w.nodes[0], n, "after"); stored != n {
			t.Errorf("after it %d of %d were stored", stored, n)
		}
		time.Sleep(w.bound)
		hits := 0
		for _, v := range w.nodes {
			for i := range n {
				got, err := v.s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{})
				if err == nil && string(got.Value) != "after" {
					t.Fatalf("key%d is %q on %s", i, got.Value, v.name)
				}
				if err == nil {
					hits++
				}
			}
		}
		if hits != n*len(w.nodes) {
			t.Errorf("%d of %d reads hit", hits, n*len(w.nodes))
		}
	})
}

// A node whose clock is an hour off is refused, and both sides report it. The others
// continue without it. Its apps get misses in time.
func TestVirtualClockOff(t *testing.T) {
	t.Parallel()
	inQuietWorld(t, 3, func(t *testing.T, w *world) {
		off := &vnode{w: w, i: 3, name: "off", ip: "10.0.9.9", clock: &virtualClock{origin: w.begun}}
		off.clock.offset.Store(time.Hour.Milliseconds())
		w.nodes = append(w.nodes, off)
		off.start()
		time.Sleep(20 * time.Second)
		for _, v := range w.nodes[:3] {
			if n := len(v.s.engine.Node.View().Table.Members()); n != 3 {
				t.Errorf("%s has %d in its ring, want 3", v.name, n)
			}
			why := ""
			for _, m := range v.s.engine.Node.Members() {
				if m.ID.Node == "off" {
					why = m.State + ": " + m.Why
				}
			}
			if !strings.Contains(why, "clock") {
				t.Errorf("%s says of it %q", v.name, why)
			}
		}
		if stored := setAll(w.nodes[1], 50, "v"); stored != 50 {
			t.Errorf("the others store %d of 50", stored)
		}
		for i := range 50 {
			began := time.Now()
			if v, err := off.s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
				t.Errorf("the refused one reads %q, %v", v.Value, err)
			}
			if d := time.Since(began); d > 1100*time.Millisecond {
				t.Errorf("and takes %v", d)
			}
		}
	})
}

// A node that has joined has a version clock that is an hour ahead. It is cut off: the
// others report it, merge nothing of it, and take over what it owned. Its next process
// joins again.
func TestVirtualVersionsAhead(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 700*time.Millisecond)
	inQuietWorld(t, 4, func(t *testing.T, w *world) {
		off, others := w.nodes[3], w.nodes[:3]
		setAll(others[0], 200, "before")
		off.s.engine.HLC.Observe(kv.FirstVersionAt(off.clock.Read().Wall + time.Hour.Milliseconds()))
		setAll(off, 200, "of the one ahead")
		time.Sleep(20 * time.Second)
		for _, v := range others {
			if n := len(v.s.engine.Node.View().Table.Members()); n != 3 {
				t.Errorf("%s has %d in its ring, want 3", v.name, n)
			}
			for _, m := range v.s.engine.Node.Members() {
				if m.ID.Node == "n3" && !strings.Contains(m.Why, "version clock") {
					t.Errorf("%s says of it %q: %s", v.name, m.State, m.Why)
				}
			}
			now := v.clock.Read().Wall
			if clock := v.s.engine.HLC.Next(now); clock > kv.FirstVersionAt(now+3000) {
				t.Errorf("%s has taken its clock: %v at %d", v.name, clock, now)
			}
		}
		if stored := setAll(others[1], 200, "after"); stored != 200 {
			t.Errorf("the others store %d of 200", stored)
		}
		for i := range 200 {
			if got, err := others[2].s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err != nil || string(got.Value) != "after" {
				t.Errorf("key%d: %q, %v", i, got.Value, err)
			}
		}
		off.kill()
		time.Sleep(15 * time.Second)
		off.start()
		w.agreed(30 * time.Second)
	})
}

// The owner of some keys is killed. Reads of these keys through other nodes miss. They
// hit again after the keys are written anew, within a stated time.
func TestVirtualOwnerKilled(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		const n = 300
		if stored := setAll(w.nodes[0], n, "v"); stored != n {
			t.Fatalf("%d of %d stored", stored, n)
		}
		w.nodes[3].kill()
		began := time.Now()
		back := make([]time.Duration, n)
		ctx := context.Background()
		for left := n; left > 0; time.Sleep(10 * time.Millisecond) {
			for i := range n {
				if back[i] != 0 {
					continue
				}
				switch _, err := w.nodes[0].s.Get(ctx, "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); {
				case err == nil:
					back[i] = max(time.Since(began), 1)
					left--
				case errors.Is(err, cachesidecar.ErrNotFound): // as an app would
					_, _ = w.nodes[0].s.Set(ctx, "default", string(testKeyOf(i)), []byte("v"), cachesidecar.SetOptions{})
				default:
					t.Fatalf("key%d: %v", i, err)
				}
			}
			if time.Since(began) > time.Minute {
				t.Fatalf("%d keys never came back", left)
			}
		}
		last := time.Duration(0)
		for _, d := range back {
			last = max(last, d)
		}
		t.Logf("all keys hit again %v after their owner was killed", last)
		if last > 6*time.Second {
			t.Errorf("that is too late")
		}
	})
}
