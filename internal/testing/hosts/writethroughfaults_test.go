package hosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestVirtualWriteThroughOwnerGone checks a write whose owner is killed, or does not run for a
// while. Its outcome is unknown, and later reads return what the origin has.
func TestVirtualWriteThroughOwnerGone(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for _, when := range []string{"before", "after"} {
		for _, how := range []string{"killed", "paused", "paused, and just back"} {
			t.Run(how+" "+when, func(t *testing.T) {
				s := &store{database: newDatabase(always(10 * time.Millisecond))}
				throughNodes(t, 3, s, Namespace{}, func(w *world) {
					owner, v := w.ownerOf("k"), w.other("k")
					s.database.set("k", []byte("old"))
					is(t, "before", v.get("k", 0), wire.OK, "old")
					gone := func() error {
						if how == "killed" {
							go owner.kill() // kill does not wait here
							time.Sleep(20 * time.Millisecond)
							return nil
						}
						s.before, s.after = nil, nil
						go owner.pause(15 * time.Second)
						time.Sleep(10 * time.Second)
						// Another host owns it by now, and has read the present value.
						is(t, "meanwhile", v.get("k", 0), wire.OK, s.row("k"))
						if how == "paused" { // the owner has the key again
							time.Sleep(6 * time.Second)
						} else {
							time.Sleep(5*time.Second + 20*time.Millisecond)
						}
						return nil
					}
					if when == "before" {
						s.before = gone
					} else {
						s.after = gone
					}
					if r := v.set("k", "new"); r.Status != wire.Timeout {
						t.Errorf("SET: %s %s, want TIMEOUT", r.Status, r.Message)
					}
					s.before, s.after = nil, nil
					time.Sleep(20 * time.Second)
					for _, v := range w.nodes {
						if v.s != nil {
							is(t, "later, through "+v.name, v.get("k", 0), wire.OK, s.row("k"))
						}
					}
					if r := v.set("k", "newer"); r.Status != wire.OK {
						t.Errorf("the next SET: %s %s", r.Status, r.Message)
					}
					time.Sleep(100 * time.Millisecond)
					for _, v := range w.nodes {
						if v.s != nil {
							is(t, "at last, through "+v.name, v.get("k", 0), wire.OK, "newer")
						}
					}
				})
			})
		}
	}
}

// TestVirtualWriteThroughSuperseded checks a write whose answer comes after its owner has lost
// the key and got it back. It does not store what another owner has overwritten.
func TestVirtualWriteThroughSuperseded(t *testing.T) {
	s := &store{database: newDatabase(always(10 * time.Millisecond))}
	throughNodes(t, 3, s, Namespace{Limits: Limits{Timeout: 30 * time.Second}}, func(w *world) {
		owner, v := w.ownerOf("k"), w.other("k")
		s.after = func() error {
			s.after = nil
			go owner.pause(12 * time.Second)
			time.Sleep(10 * time.Second)
			if r := v.set("k", "second"); r.Status != wire.OK {
				t.Errorf("the second SET: %s %s", r.Status, r.Message)
			}
			time.Sleep(10 * time.Second)
			if w.ownerOf("k") != owner {
				t.Error("the owner has not got the key back")
			}
			return nil
		}
		r := owner.do(&wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("first"), TimeoutMS: 60_000})
		if r.Status != wire.OK {
			t.Errorf("the first SET: %s %s", r.Status, r.Message)
		}
		time.Sleep(100 * time.Millisecond)
		for _, v := range w.nodes {
			is(t, "later, through "+v.name, v.get("k", 0), wire.OK, "second")
		}
		if got := s.row("k"); got != "second" {
			t.Errorf("the origin has %q", got)
		}
	})
}

// TestLengthyVirtualWriteThrough checks the history of every key under faults, with
// write-throughs to an origin. If no host was killed, all hosts read what the origin has
// once the writes have ended.
func TestLengthyVirtualWriteThrough(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	t.Parallel()
	for policy, voters := range policies {
		for run := range *virtualRuns {
			seed, kills := firstSeed()+uint64(run), run%2 == 1
			t.Run(fmt.Sprintf("%s, kills %v, seed %d", policy, kills, seed), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) { writeThroughAtRandom(t, seed, kills, voters) })
			})
		}
	}
}

func writeThroughAtRandom(t *testing.T, seed uint64, kills bool, voters []string) {
	w := newWorld(t, seed, 4)
	w.voters = voters
	rnd := rand.New(rand.NewPCG(seed, 7))
	var mu sync.Mutex
	over := false
	s := &store{database: newDatabase(func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(10) == 0 && !over {
			return time.Duration(rnd.IntN(700)) * time.Millisecond
		}
		return time.Duration(rnd.IntN(30)) * time.Millisecond
	})}
	lost := func() error {
		mu.Lock()
		defer mu.Unlock()
		if rnd.IntN(20) == 0 && !over {
			return errors.New("connection reset")
		}
		return nil
	}
	s.before, s.after = lost, lost
	w.origin, w.ns = s.database, Namespace{WriteThrough: true, Origin: loader.Custom{Source: s.database, Writer: s}}
	w.startAll()
	w.agreed(15 * time.Second)
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	w.load(ctx, &wg)
	for range 8 {
		time.Sleep(time.Duration(w.rnd.IntN(4000)) * time.Millisecond)
		v, o := w.nodes[w.rnd.IntN(len(w.nodes))], w.nodes[w.rnd.IntN(len(w.nodes))]
		switch op := w.rnd.IntN(6); {
		case v.s == nil:
			v.start()
		case kills && op < 2:
			v.kill()
		case op == 2:
			v.leave()
		case op == 3:
			weight := v.s.cfg.Weight
			v.s.engine.Node.SetWeight(1)
			if o != v {
				w.net.Cut(v.ip, o.ip)
			}
			time.Sleep(w.upTo(2000))
			v.s.engine.Node.SetWeight(weight)
			w.net.Heal()
		default:
			v.pause(w.upTo(9000))
		}
	}
	w.startAll()
	time.Sleep(10 * time.Second)
	w.agreed(30 * time.Second)
	stop()
	wg.Wait()
	if !kills {
		w.lastWrites(s, func(now bool) {
			mu.Lock()
			defer mu.Unlock()
			over = now
		})
	}
	w.leaveAll()
	t.Logf("seed %d: %d hits, %d misses, %d writes failed, %v", seed, w.hits, w.misses, w.failed, w.seen)
	if w.hits < 1000 || w.failed == 0 || w.seen["l1 hits"] == 0 {
		t.Errorf("too tame a run")
	}
}

// lastWrites moves keys while they are written, and checks what remains after the last
// write. quiet(true) makes the database fast and free of errors.
func (w *world) lastWrites(s *store, quiet func(now bool)) {
	for range 4 {
		ctx, stop := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		w.load(ctx, &wg)
		v := w.nodes[w.rnd.IntN(len(w.nodes))]
		time.Sleep(time.Second)
		weight := v.s.cfg.Weight
		v.s.engine.Node.SetWeight(1)
		time.Sleep(w.upTo(300))
		stop()
		wg.Wait()
		time.Sleep(3 * time.Second)
		quiet(true)
		for _, k := range w.keys {
			w.settled(s, string(k.name), w.fail)
		}
		quiet(false)
		v.s.engine.Node.SetWeight(weight)
		time.Sleep(2 * time.Second)
	}
}
