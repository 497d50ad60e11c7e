package hosts

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Policy consistent: the bound holds always, even in splits.

// Nodes are killed, leave, are paused and come back. The network is split, one way or
// both ways, for longer than it takes to detect dead nodes. The checker makes no
// exception.
func TestLengthyVirtualConsistent(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	t.Parallel()
	virtually(t, 5, func(w *world) {
		for range 10 {
			down := w.down()
			v := w.nodes[w.rnd.IntN(len(w.nodes))]
			switch op := w.rnd.IntN(12); {
			case len(down) > 1 || op < 3 && len(down) > 0:
				down[w.rnd.IntN(len(down))].start()
			case op < 7:
				w.split(w.rnd.IntN(3) > 0, func() bool { return w.rnd.IntN(2) == 0 })
				time.Sleep(time.Duration(w.rnd.IntN(12000)) * time.Millisecond)
				w.net.Heal()
			case v.s == nil:
			case op < 9:
				v.kill()
			case op < 10:
				v.leave()
			default:
				v.pause(time.Duration(w.rnd.IntN(12000)) * time.Millisecond)
			}
			time.Sleep(time.Duration(w.rnd.IntN(8000)) * time.Millisecond)
		}
		w.startAll()
	}, "n1", "n2", "n4")
}

// split cuts all links from the nodes that left picks to the other nodes. If both is set,
// it also cuts the links back.
func (w *world) split(both bool, left func() bool) {
	side := make([]bool, len(w.nodes))
	for i := range side {
		side[i] = left()
	}
	for i, a := range w.nodes {
		for j, b := range w.nodes {
			switch {
			case !side[i] || side[j]:
			case both:
				w.net.Cut(a.ip, b.ip)
			default:
				w.net.CutOneWay(a.ip, b.ip)
			}
		}
	}
}

// A split of 30 s. The side with a majority of the voters continues with all keys. The
// other side serves nothing after twice the bound, and refuses writes. After the split
// nothing that was written is lost.
func TestVirtualSplitVoters(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		const n = 200
		ctx := context.Background()
		left, right := w.nodes[:2], w.nodes[2:] // n1 votes left; n2, n4 right
		if stored := setAll(left[0], n, "before"); stored != n {
			t.Fatalf("%d of %d stored", stored, n)
		}
		for _, v := range w.nodes { // copies of all keys are everywhere
			for i := range n {
				if _, err := v.s.Get(ctx, "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		i := 0
		w.split(true, func() bool { i++; return i <= len(left) })
		began := time.Now()
		time.Sleep(2 * w.bound)
		for i, v := range w.nodes {
			words, ready := v.s.readiness()
			if lost := i < len(left); ready == lost || strings.HasPrefix(words, "not ready: no majority of the voters answers") != lost {
				t.Errorf("%s after twice the bound: %q, %v", v.name, words, ready)
			}
		}
		for _, v := range left {
			for i := range n {
				began := time.Now()
				if got, err := v.s.Get(ctx, "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
					t.Fatalf("%s reads key%d as %q, %v, without a majority of the voters", v.name, i, got.Value, err)
				}
				if d := time.Since(began); d > 50*time.Millisecond {
					t.Fatalf("a miss takes %v", d)
				}
			}
			q := wire.Request{Op: wire.OpGet, Namespace: session.DefaultNamespace, Key: testKeyOf(1), Options: wire.Fresh, TTLMS: wire.TTLDefault}
			if _, err := v.s.execute(ctx, &q); !unavailable(err) {
				t.Errorf("%s answers a fresh read with %v, want UNAVAILABLE", v.name, err)
			}
			if _, err := v.s.Set(ctx, "default", string(testKeyOf(1)), []byte("left"), cachesidecar.SetOptions{}); !unavailable(err) {
				t.Errorf("%s answers a write with %v, want UNAVAILABLE", v.name, err)
			}
			if _, err := v.s.DeleteMulti(ctx, "default", []string{string(testKeyOf(1))}, cachesidecar.DeleteOptions{}); !unavailable(err) {
				t.Errorf("%s answers a deletion with %v, want UNAVAILABLE", v.name, err)
			}
		}
		for setAll(right[0], n, "split") < n {
			if time.Since(began) > 15*time.Second {
				t.Fatalf("the side of a majority does not store all after %v", time.Since(began))
			}
		}
		t.Logf("the side of a majority stored all %v after the split", time.Since(began))
		time.Sleep(30*time.Second - time.Since(began))
		if stored := setAll(left[1], n, "left"); stored != 0 {
			t.Errorf("the other side stored %d", stored)
		}
		w.net.Heal()
		time.Sleep(time.Second)
		w.agreed(60 * time.Second)
		for _, v := range w.nodes {
			for i := range n {
				if got, err := v.s.Get(ctx, "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err != nil || string(got.Value) != "split" {
					t.Fatalf("key%d is %q, %v on %s after the split", i, got.Value, err, v.name)
				}
			}
		}
	}, "n1", "n2", "n4")
}

func unavailable(err error) bool {
	return errors.Is(err, cachesidecar.ErrUnavailable)
}

// A host whose ownership no majority of the voters has acknowledged for the bound finds
// that out before it answers a read, and before it acknowledges a write. This holds
// although its process has run all the time, or nearly all.
func TestVirtualAuthorityEnds(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	ctx := context.Background()
	for _, name := range []string{"read", "write"} {
		t.Run(name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				w := newWorld(t, 1, 3)
				w.voters = []string{"n0", "n1", "n2"}
				v := w.nodes[0]
				clock := &actingClock{virtualClock: v.clock}
				v.reads = clock
				w.startAll()
				w.agreed(15 * time.Second)
				key, h := keyOwnedBy(v, "key")
				mustSet(t, v.s, string(key), []byte("old"))
				w.net.Isolate(v.ip)
				time.Sleep(w.bound/2 + 12345*time.Nanosecond)
				if got, err := v.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err != nil || string(got.Value) != "old" {
					t.Fatalf("while its authority lasts it answers %q, %v", got.Value, err)
				}
				synctest.Wait()                                                 // only this goroutine runs until it sleeps
				late := func() { v.pause(w.bound*3/4 + 12345*time.Nanosecond) } // too short for a pause
				if name == "read" {
					late()
					if got, err := v.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); !errors.Is(err, cachesidecar.ErrNotFound) {
						t.Errorf("after its authority has ended it answers %q, %v", got.Value, err)
					}
				} else {
					version := func() kv.Version {
						info, _ := v.s.engine.Store.Peek(v.s.engine.Namespaces.Lookup(session.DefaultNamespace).Key(key), 0)
						return info.Version
					}
					before := version()
					stored := func() {
						if version() != before {
							clock.act.Store(nil)
							late()
						}
					}
					clock.act.Store(&stored)
					_, err := v.s.Set(ctx, "default", string(key), []byte("new"), cachesidecar.SetOptions{})
					if !errors.Is(err, cachesidecar.ErrTimeout) {
						t.Errorf("a write at the end of its authority: %v, want TIMEOUT", err)
					}
					if clock.act.Swap(nil) != nil {
						t.Error("the clock was not read after the write was stored")
					}
				}
				if n := v.s.telemetry.ClusterState().Pauses; n != 0 {
					t.Errorf("%d pauses were found", n)
				}
				w.awaitOwned(v, h.Partition())
				w.leaveAll()
			})
		})
	}
}

// If voters are restarted one after the other, each as soon as all partitions are owned
// again, nothing is lost. A voter that is to end waits until the others vote. A voter
// that granted a claim before it votes is asked again. A promise that led to nothing is
// forgotten.
func TestLengthyVirtualVotersRestartInTurn(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for sixteenths := 0; sixteenths < 24; sixteenths += 4 { // of B, between the restarts
		inQuietWorld(t, 3, func(t *testing.T, w *world) {
			const n = 60
			setAll(w.nodes[0], n, "value")
			time.Sleep(5 * w.bound / 2) // until the promises from the start are forgotten
			for _, v := range w.nodes {
				time.Sleep(w.bound * time.Duration(sixteenths) / 16)
				v.leave()
				v.start()
				time.Sleep(w.bound / 2) // it has joined
				w.agreed(15 * time.Second)
				for _, o := range w.nodes {
					if hits := found(o, n); hits != n {
						t.Errorf("%d/16 B apart, after a restart of %s: %d of %d keys are read through %s", sixteenths, v.name, hits, n, o.name)
					}
				}
			}
		}, "n0", "n1", "n2")
	}
}
