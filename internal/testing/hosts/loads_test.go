package hosts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// database is an origin in memory. A call returns the state of one moment within the
// call.
type database struct {
	takes func() time.Duration // duration of a call before that moment, and after it

	mu    sync.Mutex
	rows  map[string][]byte
	err   error
	calls map[string]int

	lists   int // number of listings of its keys
	listErr error
}

func newDatabase(takes func() time.Duration) *database {
	return &database{takes: takes, rows: map[string][]byte{}, calls: map[string]int{}}
}

func always(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

func (d *database) set(key string, value []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows[key] = value
}

func (d *database) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.err = err
}

// asked returns how often a key was loaded.
func (d *database) asked(key string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls[key]
}

func (d *database) Load(ctx context.Context, key []byte) (loader.Value, error) {
	wait := func() error {
		select {
		case <-time.After(d.takes()):
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := wait(); err != nil {
		return loader.Value{}, err
	}
	d.mu.Lock()
	d.calls[string(key)]++
	value, ok := d.rows[string(key)]
	err := d.err
	d.mu.Unlock()
	if err != nil {
		return loader.Value{}, err
	}
	if err := wait(); err != nil {
		return loader.Value{}, err
	}
	if !ok {
		return loader.Value{}, loader.ErrAbsent
	}
	return loader.Value{Bytes: value}, nil
}

// withNodes runs a test with n nodes that have found each other. Their default namespace
// has the settings ns. With voters the policy is consistent.
func withNodes(t *testing.T, n int, o *database, ns Namespace, f func(w *world), voters ...string) {
	t.Helper()
	withEdited(t, n, o, ns, nil, f, voters...)
}

// withEdited is withNodes with nodes that edit changes before they start.
func withEdited(t *testing.T, n int, o *database, ns Namespace, edit, f func(w *world), voters ...string) {
	t.Helper()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, firstSeed(), n)
		w.origin, w.ns, w.voters = o, ns, voters
		if edit != nil {
			edit(w)
		}
		w.startAll()
		w.agreed(15 * time.Second)
		time.Sleep(5 * time.Second) // for handoffs and leases
		f(w)
		w.leaveAll()
	})
}

// ownerOf returns the node that owns a key.
func (w *world) ownerOf(key string) *vnode {
	for _, v := range w.nodes {
		if v.s != nil && owns(v.s, DefaultNamespace, key) {
			return v
		}
	}
	panic("no host owns " + key)
}

// other returns a node that does not own a key.
func (w *world) other(key string) *vnode {
	o := w.ownerOf(key)
	for _, v := range w.nodes {
		if v.s != nil && v != o {
			return v
		}
	}
	return nil
}

// do executes a request through a node.
func (v *vnode) do(q *wire.Request) wire.Reply {
	q.Namespace = session.DefaultNamespace
	if q.Op != wire.OpSet && q.Op != wire.OpFill || q.TTLMS == 0 {
		q.TTLMS = wire.TTLDefault
	}
	r, err := v.s.execute(context.Background(), q)
	if err != nil && r.Status == wire.OK && !errors.Is(err, cachesidecar.ErrClosed) {
		v.w.t.Errorf("%s: %v", q.Op, err)
	}
	return r
}

func (v *vnode) get(key string, options wire.Options) wire.Reply {
	return v.do(&wire.Request{Op: wire.OpGet, Key: []byte(key), Options: options})
}

func (v *vnode) drop(key string, options wire.Options) {
	v.do(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Options: options})
}

// is checks the status and the value of an answer.
func is(t *testing.T, what string, r wire.Reply, status wire.Status, value string) {
	t.Helper()
	if r.Status != status || string(r.Value) != value {
		t.Errorf("%s: %s %q (%s %v), want %s %q", what, r.Status, r.Value, r.Message, r.Why, status, value)
	}
}

// TestVirtualLoadOnce checks that the origin is called once for a cold key, however many
// readers on however many hosts ask for it. It is called again only if the key is gone.
func TestVirtualLoadOnce(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	o := newDatabase(always(100 * time.Millisecond))
	withNodes(t, 5, o, Namespace{}, func(w *world) {
		for i := range 20 {
			o.set(fmt.Sprint("key", i), fmt.Append(nil, "value", i))
		}
		var wg sync.WaitGroup
		for i := range 2000 {
			key := fmt.Sprint("key", i%20)
			v := w.nodes[i/20%5]
			wg.Go(func() {
				time.Sleep(time.Duration(i%7) * 30 * time.Millisecond) // some come after it
				is(t, key, v.get(key, 0), wire.OK, "value"+key[3:])
			})
		}
		wg.Wait()
		for i := range 20 {
			if key := fmt.Sprint("key", i); o.asked(key) != 1 {
				t.Errorf("%s was loaded %d times", key, o.asked(key))
			}
		}
		// Many keys at a time, through a host that has none of them in L1.
		q := &wire.Request{Op: wire.OpMGet}
		for i := range 20 {
			q.Keys = append(q.Keys, fmt.Append(nil, "key", i))
		}
		for _, v := range w.nodes {
			v.s.engine.L1.Wait()
		}
		w.nodes[2].drop("key7", 0)
		time.Sleep(100 * time.Millisecond) // until all hosts have heard of it
		if b, deadline := (namespaces.Pins{Table: w.nodes[3].s.engine.Namespaces}), time.Second; true {
			q.Namespace = session.DefaultNamespace
			r := w.nodes[3].s.engine.Serve(context.Background(), q, &b, w.nodes[3].clock.Read().Boot+deadline)
			b.Release()
			for i := range r.Items {
				is(t, "MGET", r.Items[i], wire.OK, fmt.Sprint("value", i))
			}
		}
		if o.asked("key7") != 2 || o.asked("key8") != 1 {
			t.Errorf("after a deletion key7 was loaded %d times and key8 %d times, want 2 and 1", o.asked("key7"), o.asked("key8"))
		}
	})
}

// TestVirtualLoadAgainstInvalidation checks a value that is loaded while its key is
// invalidated. Waiting readers get it, but it is not kept. A read after the invalidation
// gets the new value.
func TestVirtualLoadAgainstInvalidation(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 800*time.Millisecond)
	for _, through := range []string{"owner", "other"} {
		for _, how := range []string{"delete", "soft", "flush"} {
			t.Run(how+" through the "+through, func(t *testing.T) {
				o := newDatabase(always(200 * time.Millisecond))
				withNodes(t, 3, o, Namespace{}, func(w *world) {
					o.set("k", []byte("old"))
					v, reader := w.ownerOf("k"), w.other("k")
					if through == "other" {
						v, reader = reader, v
					}
					var wg sync.WaitGroup
					wg.Go(func() { is(t, "who came before", reader.get("k", 0), wire.OK, "old") })
					time.Sleep(300 * time.Millisecond) // the origin has read its row
					o.set("k", []byte("new"))
					switch how {
					case "flush":
						if err := flushThrough(v, DefaultNamespace, time.Second); err != nil {
							t.Error(err)
						}
						time.Sleep(100 * time.Millisecond) // other hosts set their floors later
					case "soft":
						v.drop("k", wire.Soft)
					default:
						v.drop("k", 0)
					}
					is(t, "who came after", v.get("k", 0), wire.OK, "new")
					wg.Wait()
					for _, v := range w.nodes {
						is(t, "later, through "+v.name, v.get("k", wire.NoLoad), wire.OK, "new")
					}
					if n := o.asked("k"); n != 2 {
						t.Errorf("the origin was asked %d times, want 2", n)
					}
				})
			})
		}
	}
}

// TestVirtualNegative checks that hosts have copies of the absence of a key.
func TestVirtualNegative(t *testing.T) {
	o := newDatabase(always(time.Millisecond))
	withNodes(t, 3, o, Namespace{}, func(w *world) {
		for _, v := range w.nodes {
			absent(t, v.name, v.get("k", 0))
		}
		if n := o.asked("k"); n != 1 {
			t.Errorf("the origin was asked %d times within the negative TTL", n)
		}
		v := w.other("k")
		v.s.engine.L1.Wait()
		before := v.s.telemetry.ClusterState().PeerReads
		absent(t, "a copy", v.get("k", 0))
		if n := v.s.telemetry.ClusterState().PeerReads; n != before {
			t.Errorf("the owner was asked though there is a copy of its answer")
		}
	})
}

// TestVirtualLoadWithoutOwner checks that a host that cannot reach a key's owner asks the origin
// itself, and keeps nothing.
func TestVirtualLoadWithoutOwner(t *testing.T) {
	o := newDatabase(always(5 * time.Millisecond))
	withNodes(t, 3, o, Namespace{}, func(w *world) {
		o.set("k", []byte("one"))
		owner, v := w.ownerOf("k"), w.other("k")
		w.net.Cut(owner.ip, v.ip)
		time.Sleep(w.bound + time.Second) // its lease is over; others see the owner
		is(t, "cut off", v.get("k", 0), wire.OK, "one")
		o.set("k", []byte("two"))
		is(t, "cut off, and changed", v.get("k", 0), wire.OK, "two")
		is(t, "one of several", v.do(&wire.Request{Op: wire.OpMGet, Keys: keysOf("k")}).Items[0], wire.OK, "two")
		if r := v.get("k", wire.NoLoad); r.Status != wire.Miss || r.Why != wire.Degraded {
			t.Errorf("without a load: %s, why %d", r.Status, r.Why)
		}
		if n := v.s.engine.Namespaces.Lookup(session.DefaultNamespace).LoadStats().Aside; n != 3 {
			t.Errorf("%d loads aside, want 3", n)
		}
		w.net.Heal()
	})
}

// TestVirtualSlowLoad checks a load that takes longer than its value lives. The readers
// that have waited for it get the value, on any host.
func TestVirtualSlowLoad(t *testing.T) {
	ttl, negative := 200*time.Millisecond, 100*time.Millisecond
	o := newDatabase(always(250 * time.Millisecond))
	withNodes(t, 3, o, Namespace{DefaultTTL: &ttl, NegativeTTL: &negative}, func(w *world) {
		o.set("k", []byte("value"))
		var wg sync.WaitGroup
		for i := range 12 {
			v := w.nodes[i%3]
			wg.Go(func() { is(t, "through "+v.name, v.get("k", 0), wire.OK, "value") })
		}
		wg.Wait()
		if n := o.asked("k"); n != 1 {
			t.Errorf("%d loads, want 1", n)
		}
		if r := w.other("none").get("none", 0); r.Status != wire.Miss || r.Why != wire.Absent {
			t.Errorf("none: %s, why %d", r.Status, r.Why)
		}
	})
}
