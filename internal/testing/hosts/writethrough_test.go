package hosts

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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

// TestVirtualWriteThrough checks that a write is in the origin when it is acknowledged, and in
// the cache, through any host.
func TestVirtualWriteThrough(t *testing.T) {
	s := &store{database: newDatabase(always(5 * time.Millisecond))}
	throughNodes(t, 3, s, Namespace{}, func(w *world) {
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
		// Many keys at a time, of several owners.
		var keys []string
		for i := range 30 {
			keys = append(keys, fmt.Sprint("k", i))
			w.nodes[i%3].set(keys[i], "value")
		}
		began := time.Now()
		for i, r := range w.nodes[0].remove(0, append(keys, "knone")...) {
			want := wire.OK
			if i == 30 {
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
		for _, v := range w.nodes {
			if v.s.engine.Namespaces.Lookup(session.DefaultNamespace).WriteThrough.Busy() {
				t.Errorf("keys are still written on %s", v.name)
			}
		}
	})
}

// TestVirtualWriteThroughWriters checks that concurrent writers of one key, on all hosts, leave
// the same value in the cache and in the origin.
func TestVirtualWriteThroughWriters(t *testing.T) {
	testenv.Takes(t, time.Second)
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
