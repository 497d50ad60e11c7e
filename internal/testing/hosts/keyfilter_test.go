package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Keys lists the keys of the database.
func (d *database) Keys(ctx context.Context, each func(key []byte) error) error {
	d.mu.Lock()
	var keys []string
	for k := range d.rows {
		keys = append(keys, k)
	}
	err := d.listErr
	d.lists++
	d.mu.Unlock()
	for _, k := range keys {
		if err := each([]byte(k)); err != nil {
			return err
		}
	}
	select {
	case <-time.After(d.takes()):
	case <-ctx.Done():
		return ctx.Err()
	}
	return err
}

// knownNodes is withNodes with a key filter of the keys that the database has.
func knownNodes(t *testing.T, n int, o *database, ns Namespace, f func(w *world)) {
	t.Helper()
	none := time.Duration(0)
	ns.ExistingKeys, ns.NegativeTTL = &ExistingKeys{Keys: 10_000, MaxAge: 20 * time.Minute, FalsePositives: 1e-6, List: loader.List{Lister: o}}, &none
	withNodes(t, n, o, ns, func(w *world) {
		time.Sleep(30 * time.Second) // until the first filter is built
		f(w)
	})
}

func (v *vnode) known() cachesidecar.KeyFilterStats {
	return v.s.engine.Namespaces.Lookup(session.DefaultNamespace).KeyFilter.Stats()
}

func absent(t *testing.T, what string, r wire.Reply) {
	t.Helper()
	if r.Status != wire.Miss || r.Why != wire.Absent {
		t.Errorf("%s: %s, why %d, %s: want MISS, absent", what, r.Status, r.Why, r.Message)
	}
}

// TestVirtualKeyFilter checks that no host asks the origin for keys that it certainly lacks. A new
// key is found as soon as it is announced, otherwise with the next filter.
func TestVirtualKeyFilter(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	o := newDatabase(always(time.Millisecond))
	o.set("there", []byte("value"))
	knownNodes(t, 3, o, Namespace{}, func(w *world) {
		for _, v := range w.nodes {
			is(t, "there", v.get("there", 0), wire.OK, "value")
			absent(t, "made up", v.get("made up", 0))
			absent(t, "made up, fresh", v.get("made up", wire.Fresh))
			if k := v.known(); !k.InUse || k.Builds == 0 || k.Keys != 1 || k.Failures != 0 {
				t.Errorf("%s: %+v", v.name, k)
			}
		}
		if n := o.asked("made up"); n != 0 {
			t.Errorf("the origin was asked %d times for what it has not", n)
		}
		// Each host announces a key.
		for i, v := range w.nodes {
			key := fmt.Sprint("new", i)
			absent(t, key, v.get(key, 0))
			o.set(key, []byte("value"))
			absent(t, key+", not announced", v.get(key, 0))
			v.drop(key, 0)
			for _, v := range w.nodes {
				is(t, key, v.get(key, 0), wire.OK, "value")
			}
		}
		v := w.other("set")
		v.set("set", "by an app")
		v.drop("set", 0)
		absent(t, "set and deleted", v.get("set", 0)) // the origin has said so
		if n := o.asked("set"); n != 1 {
			t.Errorf("the origin was asked %d times for what an app has set and deleted", n)
		}
		// A flush may stand for any change.
		o.set("bulk", []byte("value"))
		absent(t, "not announced", v.get("bulk", 0))
		if err := flushThrough(v, DefaultNamespace, time.Second); err != nil {
			t.Error(err)
		}
		is(t, "flushed", v.get("bulk", 0), wire.OK, "value")
		time.Sleep(10 * time.Minute) // the flush has woken the builder
		absent(t, "after the next filter", v.get("made up", 0))
		if n := o.asked("made up"); n != 0 {
			t.Errorf("the origin was asked %d times for what it has not", n)
		}
		// No change of this key is announced.
		o.set("silent", []byte("value"))
		absent(t, "silent", v.get("silent", 0))
		time.Sleep(20 * time.Minute)
		is(t, "with the next filter", v.get("silent", 0), wire.OK, "value")
	})
}

// TestVirtualKeyFilterTakenOver checks that a host that takes over keys does not rely on its filter
// for them until its next filter: it has not heard their announcements.
func TestVirtualKeyFilterTakenOver(t *testing.T) {
	t.Parallel()
	o := newDatabase(always(time.Millisecond))
	knownNodes(t, 3, o, Namespace{}, func(w *world) {
		var keys []string // all of one owner, which has heard the announcements
		owner := w.ownerOf("k")
		for i := 0; len(keys) < 20; i++ {
			if key := fmt.Sprint("k", i); w.ownerOf(key) == owner {
				keys = append(keys, key)
			}
		}
		v := w.other("k")
		for _, key := range keys {
			absent(t, key, v.get(key, 0))
			o.set(key, []byte("value"))
			v.drop(key, 0)
		}
		owner.kill()
		time.Sleep(6 * time.Second)
		for _, key := range keys {
			is(t, key+" at its next owner", v.get(key, 0), wire.OK, "value")
		}
		time.Sleep(time.Minute)
		absent(t, "made up, of the same partitions", v.get("k-1", 0))
		if n := o.asked("k-1"); n != 0 {
			t.Errorf("the next filter has not come within a minute: the origin was asked %d times", n)
		}
	})
}

// TestVirtualKeyFilterSplit checks a key that the other side of a split has announced, and a key
// whose announcement may be lost.
func TestVirtualKeyFilterSplit(t *testing.T) {
	o := newDatabase(always(time.Millisecond))
	knownNodes(t, 2, o, Namespace{}, func(w *world) {
		v := w.ownerOf("k")
		from := w.other("k").s.engine.Node.Self()
		h := v.s.engine.Namespaces.Hash(session.DefaultNamespace, []byte("k"))
		o.set("k", []byte("value"))
		absent(t, "not announced", v.get("k", 0))
		events := []invalidation.Event{{Kind: invalidation.Changed, Hash: h, Version: v.s.engine.HLC.Next(v.clock.Read().Wall)}}
		v.s.engine.Delegate.Apply(from, 1<<40, events)
		is(t, "announced on the other side", v.get("k", 0), wire.OK, "value")

		for i := 0; ; i++ {
			key := fmt.Sprint("l", i)
			if w.ownerOf(key) != v {
				continue
			}
			o.set(key, []byte("value"))
			absent(t, "not announced", v.get(key, 0))
			p := v.s.engine.Namespaces.Hash(session.DefaultNamespace, []byte(key)).Partition()
			v.s.engine.Delegate.Reset(from, []invalidation.Mark{{Partition: p, Changed: 1}}, nil, v.s.engine.HLC.Next(v.clock.Read().Wall))
			is(t, "its announcements lost", v.get(key, 0), wire.OK, "value")
			break
		}
	})
}

// TestVirtualKeyFilterWithoutOwner checks that a key without a reachable owner is not reported as absent,
// because it may exist although this host has not heard of it. The origin is spared all
// the same.
func TestVirtualKeyFilterWithoutOwner(t *testing.T) {
	o := newDatabase(always(time.Millisecond))
	o.set("there", []byte("value"))
	knownNodes(t, 3, o, Namespace{}, func(w *world) {
		owner, v := w.ownerOf("k"), w.other("k")
		there := "there"
		for i := 0; w.ownerOf(there) != owner; i++ { // a key that the filter lets pass
			there = fmt.Sprint("there", i)
		}
		v.s.engine.Namespaces.Lookup(session.DefaultNamespace).KeyFilter.Add(v.s.engine.Namespaces.Hash(session.DefaultNamespace, []byte(there)))
		o.set(there, []byte("value"))
		w.net.Cut(owner.ip, v.ip)
		time.Sleep(w.bound + time.Second)
		if r := v.get("k", 0); r.Status != wire.Unavailable || !strings.HasPrefix(string(r.Message), owner.name+", which owns") {
			t.Errorf("%s %s: want UNAVAILABLE, with the owner's name", r.Status, r.Message)
		}
		if n := o.asked("k"); n != 0 {
			t.Errorf("the origin was asked %d times", n)
		}
		is(t, "there", v.get(there, 0), wire.OK, "value")
		w.net.Heal()
	})
}
