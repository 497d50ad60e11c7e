package hosts

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// These tests flush the whole cluster. They check what a flush waits for, and what it
// leaves.

// flushThrough flushes a namespace of the cluster through a host, or all namespaces if
// the name is empty.
func flushThrough(v *vnode, name string, within time.Duration) error {
	q := wire.Request{Op: wire.OpFlush, Namespace: []byte(name), Options: wire.Cluster, TimeoutMS: uint32(within.Milliseconds())}
	if name == "" {
		q.Namespace, q.Options = session.DefaultNamespace, wire.Cluster|wire.All
	}
	s := v.s
	b := namespaces.Pins{Table: s.engine.Namespaces}
	defer b.Release()
	now := s.engine.Clock.Read()
	s.engine.Node.CheckPause(now.Boot)
	r := s.engine.Serve(context.Background(), &q, &b, s.engine.Deadlines.Of(&q, now))
	return r.Err()
}

// found counts the keys that are found through a host. It reads all keys at once, since
// some reads may have to wait for hosts that do not answer.
func found(v *vnode, n int) int {
	var hits atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if _, err := v.s.Get(context.Background(), "default", string(testKeyOf(i)), cachesidecar.GetOptions{}); err == nil {
				hits.Add(1)
			}
		})
	}
	wg.Wait()
	return int(hits.Load())
}

// TestVirtualFlushThenRestarts checks that values written after a flush stay, however often
// hosts are restarted that have to hear of the flush again. A floor is as old as its
// flush.
func TestVirtualFlushThenRestarts(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	const n = 60
	for _, name := range []string{"default", ""} {
		inQuietWorld(t, 3, func(t *testing.T, w *world) {
			setAll(w.nodes[0], n, "before")
			testenv.Must(t, flushThrough(w.nodes[0], name, 5*time.Second))
			for _, v := range w.nodes {
				if hits := found(v, n); hits > 0 {
					t.Errorf("flush of %q: %d keys are read through %s after it", name, hits, v.name)
				}
			}
			setAll(w.nodes[0], n, "after")
			for round := range 2 {
				for _, v := range w.nodes {
					v.leave()
					time.Sleep(5 * time.Second)
					v.start()
					time.Sleep(5 * time.Second)
					w.agreed(15 * time.Second)
					if hits := found(v, n); hits != n {
						t.Errorf("flush of %q, round %d: %d of %d keys are left after a restart of %s", name, round, hits, n, v.name)
					}
				}
			}
		})
	}
}

// TestVirtualFlushByAMinority checks that a side without a majority of the voters acknowledges
// no flush.
func TestVirtualFlushByAMinority(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	inQuietWorld(t, 5, func(t *testing.T, w *world) {
		const n = 100
		left, right := w.nodes[:2], w.nodes[2:]
		setAll(left[0], n, "before")
		i := 0
		w.split(true, func() bool { i++; return i <= len(left) })
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(500 * time.Millisecond) {
			if err := flushThrough(left[0], "default", time.Second); err == nil {
				t.Fatalf("%v after the split a minority has flushed", time.Since(began))
			}
		}
		if hits := found(right[0], n); hits == 0 {
			t.Error("the majority has lost all keys")
		}
		w.net.Heal()
		time.Sleep(10 * time.Second)
		if err := flushThrough(left[0], "default", time.Second); err != nil {
			t.Errorf("once healed: %v", err)
		}
	}, "n1", "n2", "n4")
}

// amiss is a fault during which a flush comes.
type amiss struct {
	name   string
	by     int // index of the host that flushes
	before func(w *world)
	amid   func(w *world)
	twice  bool // two processes have the same name
}

func leave34(w *world) {
	w.nodes[3].leave()
	w.nodes[4].leave()
	w.agreed(15 * time.Second)
}

var amid = []amiss{
	{name: "a holder dies", amid: func(w *world) { w.nodes[3].kill() }},
	{name: "a holder pauses", amid: func(w *world) { w.nodes[3].pause(3 * w.bound) }},
	{name: "a holder stutters", amid: func(w *world) {
		for range 6 {
			w.nodes[3].pause(w.bound * 9 / 10)
			time.Sleep(time.Millisecond)
		}
	}},
	{name: "a link is cut", amid: func(w *world) {
		w.net.Cut(w.nodes[0].ip, w.nodes[3].ip)
		time.Sleep(w.bound)
		w.net.Heal()
	}},
	{name: "a split of about the detection time", amid: func(w *world) {
		i := 0
		w.split(true, func() bool { i++; return i > 3 })
		// Longer than a flush that does not wait takes to be acknowledged, plus B.
		time.Sleep(2 * w.bound)
		w.net.Heal()
	}},
	{name: "partitions move", amid: func(w *world) {
		w.nodes[1].s.engine.Node.SetWeight(1)
		time.Sleep(time.Second)
		w.nodes[1].s.engine.Node.SetWeight(8)
	}},
	{name: "a holder leaves", amid: func(w *world) { w.nodes[3].leave() }},
	{name: "a host is restarted", amid: func(w *world) { w.nodes[4].leave(); w.nodes[4].start() }},
	{name: "two join", before: leave34, amid: func(w *world) { w.nodes[3].start(); w.nodes[4].start() }},
	{name: "one joins, of whom the flusher cannot hear", before: leave34, amid: func(w *world) {
		w.nodes[3].start()
		w.net.Cut(w.nodes[0].ip, w.nodes[3].ip)
		time.Sleep(2 * w.bound)
		w.net.Heal()
	}},
	{name: "by a host that has just been started", by: 3, before: leave34, amid: func(w *world) { w.nodes[3].start() }},
	{name: "by a host that comes back from a pause", by: 3, amid: func(w *world) { w.nodes[3].pause(5 * w.bound) }},
	{name: "an old process of a name is in elsewhere", before: twoOfOneName, twice: true, amid: func(w *world) {
		time.Sleep(w.bound / 2)
		w.net.Heal()
		// While both processes live, each drops what the other writes, as after a split.
		time.Sleep(5 * w.bound)
	}},
}

// twoOfOneName lets the flusher know a new process of a name, while the others know the
// old process of that name.
func twoOfOneName(w *world) {
	v := w.nodes[3]
	w.net.Isolate(w.nodes[0].ip)
	for len(w.nodes[0].s.engine.Node.View().Others()) > 0 {
		time.Sleep(w.bound / 16)
	}
	host, ip, stop := v.host, v.ip, v.stop
	v.take()
	v.ip = "10.0.9.9"
	v.start()
	w.net.Heal()
	w.net.Cut(w.nodes[0].ip, ip)
	for _, i := range []int{1, 2, 4} {
		w.net.Cut(v.ip, w.nodes[i].ip)
	}
	for began := time.Now(); !lives(w.nodes[0], "n1") && time.Since(began) < 5*time.Second; {
		time.Sleep(w.bound / 64)
	}
	go func() { // ends with the sleep
		time.Sleep(2 * w.bound)
		host.Kill()
		stop()
	}()
}

func lives(v *vnode, node kv.NodeID) bool {
	is := func(m cluster.Member) bool { return m.ID.Node == node && m.State == cluster.StateIn }
	return slices.ContainsFunc(v.s.engine.Node.Members(), is)
}

// TestLengthyVirtualFlushAmid checks flushes that come during a fault. From B after the acknowledgement
// on, no value is read that was written before the flush. Values written after the flush
// stay.
func TestLengthyVirtualFlushAmid(t *testing.T) {
	testenv.Takes(t, 15*time.Second)
	t.Parallel()
	for _, voters := range policies {
		for _, c := range amid {
			if c.twice && len(voters) > 0 {
				// With voters a name is used again only when its process is known to be
				// gone.
				continue
			}
			t.Run(policyOf(voters)+"/"+c.name, func(t *testing.T) {
				inQuietWorld(t, 5, func(t *testing.T, w *world) { c.play(t, w) }, voters...)
			})
		}
	}
}

func (c *amiss) play(t *testing.T, w *world) {
	const n = 80
	setAll(w.nodes[0], n, "before")
	found(w.nodes[2], n) // makes copies
	if c.before != nil {
		c.before(w)
	}
	done := make(chan struct{})
	go func() { // ends with the case
		defer close(done)
		c.amid(w)
	}()
	time.Sleep(time.Millisecond)
	v := w.nodes[c.by]
	started := func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return v.s != nil
	}
	for began := time.Now(); !started() || flushThrough(v, "", time.Second) != nil; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			t.Fatalf("no flush: %v", flushThrough(v, "", time.Second))
		}
	}
	time.Sleep(w.bound + time.Millisecond)
	each := func(want int, what string) {
		var wg sync.WaitGroup
		for _, v := range w.nodes {
			if v.s == nil {
				continue
			}
			wg.Go(func() {
				for v.stands() { // it answers when it runs again
					time.Sleep(100 * time.Microsecond)
				}
				if hits := found(v, n); hits != want {
					t.Errorf("%d of %d keys are read through %s that were written %s the flush", hits, n, v.name, what)
				}
			})
		}
		wg.Wait()
	}
	each(0, "before")
	<-done
	w.agreed(30 * time.Second)
	setAll(w.nodes[0], n, "after")
	time.Sleep(w.bound)
	each(n, "after")
}

// stands reports whether a host stands still.
func (v *vnode) stands() bool {
	v.w.mu.Lock()
	defer v.w.mu.Unlock()
	return v.paused
}

func policyOf(voters []string) string {
	if len(voters) > 0 {
		return "consistent"
	}
	return "available"
}

// TestVirtualFlushedNames checks that the flush of one name too many is refused and flushes
// nothing else, and that a flush of all namespaces makes room. A name without a slot
// keeps its flush until it gets a slot.
func TestVirtualFlushedNames(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		setAll(a, 10, "value")
		names := a.s.engine.Delegate
		for i := range namespaces.MaxFlushed {
			if err := names.NoteFlush(wire.Floor{Namespace: fmt.Sprint("ns", i), Version: uint64(a.s.engine.HLC.Next(0))}); err != nil {
				t.Fatalf("name %d: %v", i, err)
			}
		}
		if err := flushThrough(a, "further", time.Second); err == nil || !strings.Contains(err.Error(), "BAD_REQUEST") {
			t.Errorf("one name too many: %v", err)
		}
		if hits := found(b, 10); hits != 10 {
			t.Errorf("%d of 10 keys of another namespace are left", hits)
		}
		time.Sleep(time.Second) // b follows a's log
		ns, bad := b.s.engine.Namespaces.Obtain([]byte("ns7"), nil)
		if bad != nil {
			t.Fatal(bad)
		}
		floor := a.s.engine.Namespaces.Floors()["ns7"].Version
		admits := func(written kv.Version) bool {
			return b.s.engine.Ledger.Admit(ns.ID, 0, written, math.MaxUint64)
		}
		if floor == 0 || !admits(floor) || admits(floor-1) {
			t.Error("the floor of a new slot is not its name's")
		}
		if err := flushThrough(a, "", time.Second); err != nil {
			t.Errorf("all: %v", err)
		}
		if err := flushThrough(b, "further", time.Second); err != nil {
			t.Errorf("after a flush of all: %v", err)
		}
	})
}

// flushAs flushes a namespace of the cluster for a connection, whose places m counts.
func flushAs(v *vnode, m *quota.Account, name string) error {
	s := v.s
	b := namespaces.Pins{Table: s.engine.Namespaces, By: m}
	defer b.Release()
	r := s.engine.Serve(context.Background(), &wire.Request{Op: wire.OpFlush, Namespace: []byte(name), Options: wire.Cluster}, &b, s.engine.Clock.Read().Boot+5*time.Second)
	return r.Err()
}

// TestVirtualFlushesAreShared checks that users share the places of the flushes that are
// remembered. However many names one user flushes, other users on any host can flush
// theirs. A name that was not flushed has no place.
func TestVirtualFlushesAreShared(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		a, b := w.nodes[0], w.nodes[1]
		greedy, other, elsewhere := a.s.engine.Budget.Open("uid 1", ""), a.s.engine.Budget.Open("uid 2", ""), b.s.engine.Budget.Open("uid 1", "")
		flushed := 0
		var bad error
		for ; bad == nil && flushed <= namespaces.MaxFlushed; flushed++ {
			bad = flushAs(a, greedy, fmt.Sprint("ns", flushed))
		}
		if flushed--; bad == nil || !strings.HasPrefix(bad.Error(), "BUSY: of 1024 places uid 1 holds 768") || flushed != namespaces.MaxFlushed*3/4 {
			t.Errorf("one connection has flushed %d names: %v", flushed, bad)
		}
		if n := len(b.s.engine.Namespaces.Floors()); n != flushed {
			t.Errorf("another host remembers %d of %d", n, flushed)
		}
		for i := range 20 {
			if err := flushAs(a, other, fmt.Sprint("other", i)); err != nil {
				t.Fatalf("another user: %v", err)
			}
			if err := flushAs(b, elsewhere, fmt.Sprint("elsewhere", i)); err != nil {
				t.Fatalf("another host: %v", err)
			}
		}
		if err := flushAs(a, greedy, "ns7"); err != nil {
			t.Errorf("a name that was flushed before: %v", err)
		}
		used := func(v *vnode) int64 { return v.s.engine.Budget.Taken(quota.Flushes) }
		before := used(b)
		if err := b.s.engine.Namespaces.ReserveFlush("never", elsewhere); err != nil || used(b) != before+1 || len(b.s.engine.Namespaces.Floors()) != int(before) {
			t.Errorf("a place that is taken: %v, %d of %d", err, used(b), before)
		}
		if b.s.engine.Namespaces.ReleaseFlush("never"); used(b) != before {
			t.Errorf("a flush that no host has noted keeps its place: %d, was %d", used(b), before)
		}
		testenv.Must(t, flushThrough(b, "", 5*time.Second))
		time.Sleep(time.Second)
		if used(a) != 0 || used(b) != 0 || a.s.engine.Budget.Shares()[quota.Flushes].MostBy != 0 {
			t.Errorf("after a flush of all %d and %d places are taken", used(a), used(b))
		}
		if err := flushAs(a, greedy, "ns2000"); err != nil {
			t.Errorf("after a flush of all: %v", err)
		}
	})
}

// TestVirtualResetHasFlushes checks that what stands for lost events also has the flushes.
func TestVirtualResetHasFlushes(t *testing.T) {
	inQuietWorld(t, 2, func(t *testing.T, w *world) {
		setAll(w.nodes[0], 10, "value")
		s := w.nodes[0].s
		floor := s.engine.HLC.Next(s.engine.Clock.Read().Wall)
		s.engine.Delegate.Reset(w.nodes[1].s.engine.Node.Self(), nil, []wire.Floor{{Version: uint64(floor)}}, floor)
		time.Sleep(time.Second) // it is in this host's log too
		for _, v := range w.nodes {
			if hits := found(v, 10); hits > 0 {
				t.Errorf("%d keys are read through %s after a RESET that had a flush of all", hits, v.name)
			}
		}
		if got := s.engine.Namespaces.Floors()[""].Version; got != floor {
			t.Errorf("the floor is %v, want %v", got, floor)
		}
	})
}

// TestVirtualFlushLate checks a flush that a majority has noted, and whose time is over. Its
// error does not say that nothing was done, and names no host that has answered.
func TestVirtualFlushLate(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for _, within := range []time.Duration{200 * time.Millisecond, 600 * time.Millisecond, time.Second, 1200 * time.Millisecond, 1600 * time.Millisecond} {
		inQuietWorld(t, 3, func(t *testing.T, w *world) {
			setAll(w.nodes[0], 100, "before")
			i := 0
			w.split(true, func() bool { i++; return i <= 2 }) // n2 does not answer
			err := flushThrough(w.nodes[0], "default", within)
			var e *wire.Error
			if !errors.As(err, &e) {
				t.Errorf("within %v: got %v", within, err)
				return
			}
			if e.Status != wire.Timeout || strings.Contains(e.Message, "n1") {
				t.Errorf("within %v: %v; want TIMEOUT, and not n1, which has noted it", within, err)
			}
		}, "n0", "n1", "n2")
	}
}
