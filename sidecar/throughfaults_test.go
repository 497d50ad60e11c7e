package sidecar

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// TestWriteThroughOwnerGone: a write whose owner is killed, or did not run for a
// while, has an unknown outcome, and what is read later is what the origin has.
func TestWriteThroughOwnerGone(t *testing.T) {
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
							go owner.kill() // which waits for nothing here
							time.Sleep(20 * time.Millisecond)
							return nil
						}
						s.before, s.after = nil, nil
						go owner.pause(15 * time.Second)
						time.Sleep(10 * time.Second)
						// Somebody else holds it by now, and has read what there is.
						is(t, "meanwhile", v.get("k", 0), wire.OK, s.row("k"))
						if how == "paused" { // it holds the key again
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

// TestWriteThroughOvertaken: a write whose answer comes when its owner has lost the
// key, and got it back, does not store what another owner has overwritten.
func TestWriteThroughOvertaken(t *testing.T) {
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
		if r.Status != wire.Timeout {
			t.Errorf("the first SET: %s %s, want TIMEOUT", r.Status, r.Message)
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

// TestVirtualWriteThrough: writes through to an origin under faults, with the
// history of every key checked.
func TestVirtualWriteThrough(t *testing.T) {
	for range *virtualRuns {
		seed := rand.Uint64N(1 << 32)
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, seed, 4)
			rnd := rand.New(rand.NewPCG(seed, 7))
			var mu sync.Mutex
			s := &store{database: newDatabase(func() time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rnd.IntN(30)) * time.Millisecond
			})}
			lost := func() error {
				mu.Lock()
				defer mu.Unlock()
				if rnd.IntN(20) == 0 {
					return errors.New("connection reset")
				}
				return nil
			}
			s.before, s.after = lost, lost
			w.origin, w.ns = s.database, Namespace{WriteThrough: true, Writer: s}
			for _, v := range w.nodes {
				v.start()
			}
			w.agreed(15 * time.Second)
			ctx, stop := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			w.load(ctx, &wg)
			for range 8 {
				time.Sleep(time.Duration(w.rnd.IntN(4000)) * time.Millisecond)
				switch v := w.nodes[w.rnd.IntN(len(w.nodes))]; {
				case v.s == nil:
					v.start()
				case w.rnd.IntN(3) == 0:
					v.kill()
				case w.rnd.IntN(2) == 0:
					v.leave()
				default:
					v.pause(time.Duration(w.rnd.IntN(9000)) * time.Millisecond)
				}
			}
			for _, v := range w.nodes {
				if v.s == nil {
					v.start()
				}
			}
			time.Sleep(10 * time.Second)
			w.agreed(30 * time.Second)
			stop()
			wg.Wait()
			for _, v := range w.nodes {
				v.leave()
			}
			time.Sleep(30 * time.Second)
			t.Logf("seed %d: %d hits, %d misses, %d writes failed, %v", seed, w.hits, w.misses, w.failed, w.seen)
			if w.hits < 1000 || w.failed == 0 || w.seen["l1 hits"] == 0 {
				t.Errorf("too tame a run")
			}
		})
	}
}
