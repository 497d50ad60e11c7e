package hosts

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// What a drain, its undo, and the end of a sidecar must not break, beside GET and SET:
// writes through to the origin, WATCH, ack=all, and lease tokens.

// tour is a world of which one host is drained and undone, ends, and comes back.
type tour struct {
	*world
	host *vnode
	open atomic.Pointer[Sidecar] // the host's process, until it has handed over and ends
}

// touring runs apps on all hosts during a tour. app is the load of one process of a host;
// it ends with ctx.
func touring(w *world, app func(ctx context.Context, tr *tour, v *vnode)) {
	tr := &tour{world: w, host: w.nodes[1]}
	tr.open.Store(tr.host.s)
	ctx, stop := context.WithCancel(context.Background())
	var others sync.WaitGroup
	for _, v := range w.nodes {
		if v != tr.host {
			others.Go(func() { app(ctx, tr, v) })
		}
	}
	for range 3 {
		own, stopOwn := context.WithCancel(ctx)
		var ownApp sync.WaitGroup
		ownApp.Go(func() { app(own, tr, tr.host) })
		tr.drains(ctx)
		s := tr.host.s
		tr.host.stop()
		for s.engine.Node.Owned().Len() > 0 {
			time.Sleep(time.Millisecond)
		}
		tr.open.Store(nil)
		stopOwn()
		ownApp.Wait()
		tr.host.leave()
		time.Sleep(w.upTo(1000))
		tr.host.start()
		tr.back()
		tr.open.Store(tr.host.s)
	}
	stop()
	others.Wait()
}

// drains drains the host, and takes that back at the end and in the middle.
func (tr *tour) drains(ctx context.Context) {
	drain := func(o cachesidecar.DrainOptions) {
		if d, err := tr.host.s.Drain(ctx, o); err != nil || d.NotTaken != 0 || o.Undo && !d.Undone {
			tr.fail("drain %+v: %+v, %v", o, d, err)
		}
	}
	for _, middle := range []bool{false, true} {
		time.Sleep(tr.upTo(1000))
		if middle {
			var drained sync.WaitGroup
			drained.Go(func() { drain(cachesidecar.DrainOptions{}) })
			time.Sleep(1 + tr.upTo(100))
			drain(cachesidecar.DrainOptions{Undo: true})
			drained.Wait()
		} else {
			drain(cachesidecar.DrainOptions{})
			time.Sleep(tr.upTo(3000))
			drain(cachesidecar.DrainOptions{Undo: true})
		}
		tr.back()
	}
}

// back waits until the host owns keys again.
func (tr *tour) back() {
	time.Sleep(time.Second) // the others have heard of it
	for began := time.Now(); tr.host.s.engine.Node.Owned().Empty(); time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > 30*time.Second {
			tr.t.Fatalf("%s owns nothing", tr.host.name)
		}
	}
	tr.agreed(15 * time.Second)
}

// bad reports a failure of a call through a host, unless the host's process has handed
// over and ends.
func (tr *tour) bad(v *vnode, format string, args ...any) {
	if v != tr.host || tr.open.Load() != nil {
		tr.fail(format, args...)
	}
}

// serving returns the processes that apps may use now.
func (tr *tour) serving() (list []*Sidecar) {
	for _, v := range tr.nodes {
		if v != tr.host {
			list = append(list, v.s)
		}
	}
	if s := tr.open.Load(); s != nil {
		list = append(list, s)
	}
	return list
}

// TestLengthyVirtualDrainWriteThrough checks that no SET fails that writes through to an origin,
// whatever host it comes through, and that all hosts read what the origin has.
func TestLengthyVirtualDrainWriteThrough(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			s := &store{database: newDatabase(func() time.Duration { // some writes outlast a handover
				return []time.Duration{1, 1, 3, 80}[rand.IntN(4)] * time.Millisecond
			})}
			throughNodes(t, 3, s, Namespace{}, func(w *world) {
				const keys = 8 // of each host, all written at the same time
				var writes atomic.Int64
				touring(w, func(ctx context.Context, tr *tour, v *vnode) {
					var wg sync.WaitGroup
					for i := range keys {
						wg.Go(func() {
							key := fmt.Sprintf("%s.%d", v.name, i)
							for n := 0; ctx.Err() == nil; n++ {
								writes.Add(1)
								tr.writesThrough(s, v, key, fmt.Sprint(v.run, ".", n))
								pauseFor(ctx, 25*time.Millisecond)
							}
						})
						wg.Go(func() { tr.readsThrough(ctx, v, i) })
					}
					wg.Wait()
				})
				for _, v := range w.nodes {
					for i := range keys {
						w.settled(s, fmt.Sprintf("%s.%d", v.name, i), t.Errorf)
					}
				}
				if n := writes.Load(); n < 1000 {
					t.Errorf("too tame a run: %d writes", n)
				}
			}, voters...)
		})
	}
}

// writesThrough sets a key that has no other writer, and reads it.
func (tr *tour) writesThrough(s *store, v *vnode, key, value string) {
	if r := v.set(key, value); r.Status != wire.OK || r.Version == 0 {
		tr.bad(v, "SET %s through %s: %s %s", key, v.name, r.Status, r.Message)
	}
	if got := s.row(key); got != value {
		tr.bad(v, "after SET %s through %s the origin has %q, want %q", key, v.name, got, value)
	}
	for _, fresh := range []wire.Options{0, wire.Fresh} {
		if r := v.get(key, fresh); r.Status != wire.OK || string(r.Value) != value {
			tr.bad(v, "GET %s through %s: %s %q %s, want %q", key, v.name, r.Status, r.Value, r.Message, value)
		}
	}
}

// readsThrough reads a key of each host, which loads it from the origin also while it is
// written.
func (tr *tour) readsThrough(ctx context.Context, v *vnode, i int) {
	for n := 0; ctx.Err() == nil; n++ {
		key := fmt.Sprintf("n%d.%d", n%len(tr.nodes), i)
		if r := v.get(key, 0); r.Status != wire.OK && (r.Status != wire.Miss || r.Why != wire.Absent) {
			tr.bad(v, "GET %s through %s: %s %s %v", key, v.name, r.Status, r.Message, r.Why)
		}
		pauseFor(ctx, 5*time.Millisecond)
	}
}

// hearing is what one watcher was told.
type hearing struct {
	by          string
	from, until time.Time // it knows everything between these
	changed     map[kv.Hash][]heard
	raised      []heard
}

// heard is an event as a watcher was told of it.
type heard struct {
	version uint64
	at      time.Time
	over    kv.PartitionSet // of a raised floor, or of a reset
}

// listens follows a process until ctx ends.
func listens(ctx context.Context, t *testing.T, s *Sidecar, h *hearing) {
	f := watching(t, askOf(s))
	f.WaitMS = 100
	all := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		all.Add(p)
	}
	h.from, h.changed = time.Now(), map[kv.Hash][]heard{}
	for ; ctx.Err() == nil; pauseFor(ctx, time.Millisecond) {
		sent := time.Now()
		a := f.next()
		now := time.Now()
		if a.Reset {
			h.raised = append(h.raised, heard{at: now, over: all})
		}
		if err := a.Events.Each(func(kind uint8, hash, version uint64, d *wire.EventDetail) {
			switch kind {
			case wire.EventChanged:
				h.changed[kv.Hash(hash)] = append(h.changed[kv.Hash(hash)], heard{version: version, at: now})
			case wire.EventRaised:
				h.raised = append(h.raised, heard{version, now, kv.PartitionsOf(d.Partitions)})
			}
		}); err != nil {
			t.Error(err)
		}
		if a.Seq == a.Head {
			h.until = sent
		}
	}
}

// hears returns how long after a change the watcher was told of it, or that older values
// of the key are outdated. ok is false if it was never told.
func (h *hearing) hears(c *change) (after time.Duration, ok bool) {
	first := time.Time{}
	note := func(at time.Time) {
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	for _, e := range h.changed[c.hash] {
		if e.version >= c.version {
			note(e.at)
			break
		}
	}
	for _, e := range h.raised {
		if e.over.Has(c.hash.Partition()) && (e.version > c.version || e.at.After(c.done)) {
			note(e.at)
			break
		}
	}
	return max(0, first.Sub(c.done)), !first.IsZero()
}

// change is a write that was acknowledged.
type change struct {
	by         string
	hash       kv.Hash
	version    uint64
	sent, done time.Time
}

// TestLengthyVirtualDrainWatch checks that a watcher on any host is told of each change through
// any host, within the bound.
func TestLengthyVirtualDrainWatch(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				var mu sync.Mutex
				var hearings []*hearing
				var changes []*change
				touring(w, func(ctx context.Context, tr *tour, v *vnode) {
					h := &hearing{by: fmt.Sprint(v.name, ".", v.run)}
					var wg sync.WaitGroup
					wg.Go(func() { listens(ctx, t, v.s, h) })
					var list []*change
					for n := 0; ctx.Err() == nil; n++ {
						key := fmt.Sprintf("%s.%d", v.name, n%50)
						c := &change{by: v.name, hash: v.s.engine.Namespaces.Hash(session.DefaultNamespace, []byte(key)), sent: time.Now()}
						r := v.set(key, "value")
						if c.version, c.done = r.Version, time.Now(); r.Status == wire.OK && r.Version > 0 {
							list = append(list, c)
						} else {
							tr.bad(v, "SET %s: %s %s", key, r.Status, r.Message)
						}
						pauseFor(ctx, 5*time.Millisecond)
					}
					wg.Wait()
					mu.Lock()
					defer mu.Unlock()
					hearings, changes = append(hearings, h), append(changes, list...)
				})
				heardOf(w, hearings, changes)
			}, voters...)
		})
	}
}

// heardOf checks that all watchers were told of all changes.
func heardOf(w *world, hearings []*hearing, changes []*change) {
	checked, missed, worst := 0, 0, time.Duration(0)
	for _, h := range hearings {
		for _, c := range changes {
			if c.sent.Before(h.from) || c.done.Add(w.bound).After(h.until) {
				continue
			}
			checked++
			after, ok := h.hears(c)
			if worst = max(worst, after); !ok || after > w.bound {
				if missed++; missed <= 10 {
					w.fail("the watcher on %s was told %v after %v of a change through %s at %v", h.by, ok, after, c.by, c.done.Sub(w.begun))
				}
			}
		}
	}
	if checked < 10_000 || missed > 10 {
		w.fail("%d of %d changes were missed", missed, checked)
	}
	w.t.Logf("%d changes were heard of, at most %v after their answers", checked, worst)
}

// TestLengthyVirtualDrainAckAll checks that writes with ack=all succeed within the bound and a
// little, and that every host sees them once they are answered.
func TestLengthyVirtualDrainAckAll(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				most := w.bound + w.bound/10 + 200*time.Millisecond
				var writes, slow atomic.Int64
				touring(w, func(ctx context.Context, tr *tour, v *vnode) {
					s := v.s
					var wg sync.WaitGroup
					for i := range 10 {
						wg.Go(func() {
							key := fmt.Sprintf("%s.%d", v.name, i)
							for n := 0; ctx.Err() == nil; n++ {
								value := fmt.Sprint(v.run, ".", n)
								if n%4 == 3 {
									value = "" // deleted
								}
								begun := time.Now()
								tr.acked(v, s, key, value, 2*most)
								took := time.Since(begun)
								if writes.Add(1); took > most {
									tr.bad(v, "ack=all of %s through %s took %v", key, v.name, took)
								}
								if took > w.bound/2 {
									slow.Add(1)
								}
								pauseFor(ctx, 40*time.Millisecond)
							}
						})
					}
					wg.Wait()
				})
				t.Logf("%d writes, %d of them took more than half the bound", writes.Load(), slow.Load())
				if writes.Load() < 1000 || slow.Load() == 0 {
					t.Errorf("too tame a run")
				}
			}, voters...)
		})
	}
}

// acked sets a key with ack=all, or deletes it if value is empty, and reads it through
// all hosts.
func (tr *tour) acked(v *vnode, s *Sidecar, key, value string, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	var err error
	if value != "" {
		_, err = s.Set(ctx, "default", key, []byte(value), cachesidecar.SetOptions{AckAll: true})
	} else {
		_, err = s.DeleteMulti(ctx, "default", []string{key}, cachesidecar.DeleteOptions{AckAll: true})
	}
	if err != nil {
		tr.bad(v, "ack=all of %s through %s: %v", key, s.cfg.Node, err)
		return
	}
	for _, o := range tr.serving() {
		it, err := o.Get(context.Background(), "default", key, cachesidecar.GetOptions{})
		if gone := o != tr.open.Load() && o.cfg.Node == tr.host.name; gone && err != nil {
			continue // it has ended meanwhile
		}
		if string(it.Value) != value || err != nil && (value != "" || !errors.Is(err, cachesidecar.ErrNotFound)) {
			tr.fail("%s through %s, after ack=all of %q: %q, %v", key, o.cfg.Node, value, it.Value, err)
		}
	}
}

// TestLengthyVirtualDrainLeases checks that a caller that misses gets a token or the value in
// time, through any host, and that a token from before the handover is at worst refused
// with NOT_STORED.
func TestLengthyVirtualDrainLeases(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	for policy, voters := range policies {
		t.Run(policy, func(t *testing.T) {
			withNodes(t, 3, nil, Namespace{}, func(w *world) {
				const keys = 20
				const slot = 150 * time.Millisecond // then other keys are asked for
				var stored, refused, waited atomic.Int64
				touring(w, func(ctx context.Context, tr *tour, v *vnode) {
					var wg sync.WaitGroup
					for i := range keys {
						wg.Go(func() {
							for ctx.Err() == nil {
								key := fmt.Sprintf("k%d.%d", i, time.Since(w.begun)/slot)
								begun := time.Now()
								r := v.lease(key, 0)
								if took := time.Since(begun); took > requestTimeout {
									tr.bad(v, "LEASE %s through %s took %v", key, v.name, took)
								}
								switch {
								case r.Status == wire.OK && string(r.Value) == key:
									waited.Add(1)
								case r.Status == wire.Lease && len(r.Token) > 0:
									time.Sleep(slot * 2 / 3)
									switch f := v.fill(key, r.Token, key); {
									case f.Status == wire.OK:
										stored.Add(1)
									case f.Status == wire.NotStored && len(f.Message) > 0:
										refused.Add(1)
									default:
										tr.bad(v, "FILL %s through %s: %s %s", key, v.name, f.Status, f.Message)
									}
								default:
									tr.bad(v, "LEASE %s through %s, after %v: %s %q %s %v", key, v.name, time.Since(begun), r.Status, r.Value, r.Message, r.Why)
								}
								pauseFor(ctx, slot/10)
							}
						})
					}
					wg.Wait()
				})
				t.Logf("%d fills stored, %d refused, %d values", stored.Load(), refused.Load(), waited.Load())
				if stored.Load() < 1000 || refused.Load() == 0 || waited.Load() < 1000 {
					t.Errorf("too tame a run")
				}
			}, voters...)
		})
	}
}
