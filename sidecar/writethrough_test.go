package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// store is a database that accepts writes. A write takes effect at one moment within its
// call.
type store struct {
	*database
	writing       time.Duration // duration before and after that moment; zero: as a load
	before, after func() error  // called after each; an error ends the call
}

func (s *store) commit(ctx context.Context, change func()) error {
	for _, step := range []struct {
		err    func() error
		change func()
	}{{s.before, change}, {s.after, func() {}}} {
		select {
		case <-time.After(cmp.Or(s.writing, s.takes())):
		case <-ctx.Done():
			return ctx.Err()
		}
		if step.err != nil {
			if err := step.err(); err != nil {
				return err
			}
		}
		step.change()
	}
	return nil
}

func (s *store) Store(ctx context.Context, key []byte, v loader.Value) error {
	return s.commit(ctx, func() { s.set(string(key), append([]byte(nil), v.Bytes...)) })
}

func (s *store) Delete(ctx context.Context, key []byte) error {
	return s.commit(ctx, func() { s.unset(string(key)) })
}

func (d *database) unset(key string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.rows, key)
}

// row returns the value in the database.
func (d *database) row(key string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return string(d.rows[key])
}

// throughNodes is withNodes with a namespace that writes through to the database.
func throughNodes(t *testing.T, n int, s *store, ns Namespace, f func(w *world), voters ...string) {
	t.Helper()
	ns.WriteThrough, ns.Origin = true, loader.Custom{Source: s.database, Writer: s}
	withNodes(t, n, s.database, ns, f, voters...)
}

func (v *vnode) set(key, value string) wire.Reply {
	return v.do(&wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte(value)})
}

// remove deletes keys, and returns the result of each.
func (v *vnode) remove(options wire.Options, keys ...string) []wire.Reply {
	q := &wire.Request{Op: wire.OpDelete, Options: options}
	for _, k := range keys {
		q.Keys = append(q.Keys, []byte(k))
	}
	return v.do(q).Items
}

// TestWriteThrough checks that a write is in the origin when it is acknowledged, and in
// the cache, through any host.
func TestWriteThrough(t *testing.T) {
	s := &store{database: newDatabase(always(5 * time.Millisecond))}
	throughNodes(t, 3, s, Namespace{KeyPattern: "k.*"}, func(w *world) {
		for _, v := range []*vnode{w.ownerOf("k"), w.other("k")} {
			value := "by " + v.name
			if r := v.set("k", value); r.Status != wire.OK || r.Version == 0 {
				t.Errorf("SET: %s %s", r.Status, r.Message)
			}
			if got := s.row("k"); got != value {
				t.Errorf("the origin has %q, want %q", got, value)
			}
			for _, v := range w.nodes {
				if v == w.other("k") {
					time.Sleep(100 * time.Millisecond) // until others' copies end
				}
				is(t, "after SET, through "+v.name, v.get("k", 0), wire.OK, value)
			}
		}
		if n := s.asked("k"); n != 0 {
			t.Errorf("%d loads of what was just written", n)
		}
		// Requests that the origin cannot execute.
		for name, q := range map[string]*wire.Request{
			"ADD":  {Op: wire.OpSet, Mode: wire.ModeAdd},
			"CAS":  {Op: wire.OpSet, Mode: wire.ModeCAS, Compare: 1},
			"INCR": {Op: wire.OpIncr, Delta: 1, Create: true},
			"FILL": {Op: wire.OpFill, Token: []byte("t")},
			"key":  {Op: wire.OpSet, Key: []byte("not matched")},
		} {
			if q.Key == nil {
				q.Key = []byte("k")
			}
			for _, v := range w.nodes {
				if r := v.do(q); r.Status != wire.BadRequest || len(r.Message) == 0 {
					t.Errorf("%s: %s %s, want BAD_REQUEST", name, r.Status, r.Message)
				}
			}
		}
		if r := w.other("k").do(&wire.Request{Op: wire.OpTouch, Key: []byte("k"), TTLMS: 5000}); r.Status != wire.OK {
			t.Errorf("TOUCH: %s %s", r.Status, r.Message)
		}
		// Many keys at a time, of several owners.
		var keys []string
		for i := range 30 {
			keys = append(keys, fmt.Sprint("k", i))
			w.nodes[i%3].set(keys[i], "value")
		}
		began := time.Now()
		for i, r := range w.nodes[0].remove(0, append(keys, "not matched", "knone")...) {
			want := wire.OK
			switch i {
			case 30:
				want = wire.BadRequest
			case 31:
				want = wire.Miss
			}
			if r.Status != want || want == wire.OK && r.Version == 0 {
				t.Errorf("DELETE of key %d: %s %s, want %s", i, r.Status, r.Message, want)
			}
		}
		if took := time.Since(began); took > 60*time.Millisecond {
			t.Errorf("30 deletions took %v: one after the other", took)
		}
		for _, key := range keys {
			if got := s.row(key); got != "" {
				t.Errorf("%s is %q in the origin after DELETE", key, got)
			}
			if r := w.nodes[1].get(key, 0); r.Status != wire.Miss || r.Why != wire.Absent {
				t.Errorf("%s after DELETE: %s", key, r.Status)
			}
		}
		// A soft deletion only makes the value stale.
		if r := w.nodes[0].remove(wire.Soft, "k"); r[0].Status != wire.OK || s.row("k") == "" {
			t.Errorf("soft DELETE: %s, and the origin has %q", r[0].Status, s.row("k"))
		}
		is(t, "after a soft DELETE", w.nodes[0].get("k", 0), wire.OK, s.row("k"))
		for _, v := range w.nodes {
			if n := len(v.s.engine.Names.Lookup(session.DefaultNamespace).WriteThrough.Keys); n != 0 {
				t.Errorf("%d keys are still written on %s", n, v.name)
			}
		}
	})
}

// TestWriteThroughUnknown checks writes that the origin may have executed, or has
// refused. The answer says so, and the next read gets the value from the origin.
func TestWriteThroughUnknown(t *testing.T) {
	t.Parallel()
	broken := errors.New("connection reset")
	refused := fmt.Errorf("%w: a constraint", loader.ErrNotWritten)
	badKey := fmt.Errorf("%w: %w", loader.ErrNotWritten, loader.ErrBadKey)
	for _, tc := range []struct {
		name          string
		before, after error
		takes         time.Duration
		want          wire.Status
		there         string
	}{
		{"lost on its way", broken, nil, 0, wire.Timeout, "old"},
		{"its answer lost", nil, broken, 0, wire.Timeout, "new"},
		{"refused", refused, nil, 0, wire.Origin, "old"},
		{"a bad key", badKey, nil, 0, wire.BadRequest, "old"},
		{"too slow", nil, nil, 3 * time.Second, wire.Timeout, "old"},
		{"too slow to answer", nil, nil, 700 * time.Millisecond, wire.Timeout, "new"},
	} {
		for _, through := range []string{"owner", "other"} {
			t.Run(tc.name+", through the "+through, func(t *testing.T) {
				s := &store{database: newDatabase(always(0))}
				s.before, s.after = func() error { return tc.before }, func() error { return tc.after }
				throughNodes(t, 3, s, Namespace{}, func(w *world) {
					v := w.ownerOf("k")
					if through == "other" {
						v = w.other("k")
					}
					s.database.set("k", []byte("old"))
					is(t, "before", v.get("k", 0), wire.OK, "old")
					var wg sync.WaitGroup
					if s.writing = tc.takes; tc.takes > 0 { // a load meanwhile is not kept
						wg.Go(func() {
							time.Sleep(100 * time.Millisecond)
							for _, o := range w.nodes { // what v has sent after SET waits for it
								if o != v {
									is(t, "meanwhile, through "+o.name, o.get("k", 0), wire.OK, "old")
								}
							}
						})
					}
					r := v.set("k", "new")
					if r.Status != tc.want || len(r.Message) == 0 {
						t.Errorf("SET: %s %s, want %s", r.Status, r.Message, tc.want)
					}
					wg.Wait()
					if got := s.row("k"); got != tc.there {
						t.Fatalf("the origin has %q, want %q", got, tc.there)
					}
					for _, v := range w.nodes {
						is(t, "after, through "+v.name, v.get("k", 0), wire.OK, tc.there)
					}
				})
			})
		}
	}
}

// TestWriteThroughAgainstLoads checks that a load that reads the value from before a
// write is not kept, whether it ends during the write or after it.
func TestWriteThroughAgainstLoads(t *testing.T) {
	for _, lost := range []bool{false, true} {
		for _, ends := range []time.Duration{100 * time.Millisecond, 400 * time.Millisecond} {
			t.Run(fmt.Sprintf("lost %v, ends after %v", lost, ends), func(t *testing.T) {
				var first atomic.Bool
				s := &store{writing: 150 * time.Millisecond, database: newDatabase(func() time.Duration {
					if first.CompareAndSwap(true, false) {
						return 50 * time.Millisecond // it reads before the write
					}
					return ends
				})}
				if lost {
					s.after = func() error { return errors.New("connection reset") }
				}
				throughNodes(t, 3, s, Namespace{}, func(w *world) {
					v := w.ownerOf("k")
					s.database.set("k", []byte("old"))
					is(t, "before", v.get("k", 0), wire.OK, "old")
					var wg sync.WaitGroup
					wg.Go(func() { v.set("k", "new") })
					time.Sleep(50 * time.Millisecond)
					is(t, "during the write, without a load", v.get("k", wire.NoLoad), wire.Miss, "")
					first.Store(true)
					is(t, "a load", v.get("k", 0), wire.OK, "old")
					if ends < 250*time.Millisecond {
						is(t, "after the load, without one", v.get("k", wire.NoLoad), wire.Miss, "")
					}
					wg.Wait()
					if lost {
						is(t, "after the write, without a load", v.get("k", wire.NoLoad), wire.Miss, "")
					} else {
						is(t, "after the write", v.get("k", wire.NoLoad), wire.OK, "new")
					}
				})
			})
		}
	}
}

// TestWriteThroughBusy checks that a namespace's limits apply to writes, and that a write
// that is refused with BUSY has written nothing.
func TestWriteThroughBusy(t *testing.T) {
	s := &store{database: newDatabase(always(400 * time.Millisecond))}
	throughNodes(t, 1, s, Namespace{Limits: Limits{Concurrency: 1, Queue: 1, QueueTime: 100 * time.Millisecond}}, func(w *world) {
		v := w.nodes[0]
		var wg sync.WaitGroup
		wg.Go(func() {
			if r := v.set("k", "one"); r.Status != wire.OK {
				t.Errorf("the first: %s %s", r.Status, r.Message)
			}
		})
		time.Sleep(10 * time.Millisecond)
		for _, key := range []string{"k", "l"} {
			wg.Go(func() {
				q := &wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("two"), TimeoutMS: 300}
				if r := v.do(q); r.Status != wire.Busy || len(r.Message) == 0 {
					t.Errorf("%s: %s %s, want BUSY", key, r.Status, r.Message)
				}
			})
		}
		wg.Wait()
		if s.row("k") != "one" || s.row("l") != "" {
			t.Errorf("the origin has %q and %q", s.row("k"), s.row("l"))
		}
		is(t, "after", v.get("k", 0), wire.OK, "one")
	})
}

// TestWriteThroughWriters checks that concurrent writers of one key, on all hosts, leave
// the same value in the cache and in the origin.
func TestWriteThroughWriters(t *testing.T) {
	s := &store{database: newDatabase(func() time.Duration { return time.Duration(rand.IntN(20)) * time.Millisecond })}
	throughNodes(t, 3, s, Namespace{}, func(w *world) {
		for round := range 20 {
			key := fmt.Sprint("k", round)
			var wg sync.WaitGroup
			for i := range 9 {
				v := w.nodes[i%3]
				wg.Go(func() {
					time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
					switch {
					case i%3 == 2:
						v.get(key, 0)
					case i == 0:
						v.remove(0, key)
					default:
						if r := v.set(key, fmt.Sprint("value", i)); r.Status != wire.OK {
							t.Errorf("SET: %s %s", r.Status, r.Message)
						}
					}
				})
			}
			wg.Wait()
			time.Sleep(20 * time.Millisecond) // until the others' copies are outdated
			for _, v := range w.nodes {
				if r := v.get(key, 0); string(r.Value) != s.row(key) {
					t.Errorf("%s through %s: %s %q, and the origin has %q", key, v.name, r.Status, r.Value, s.row(key))
				}
			}
		}
	})
}
