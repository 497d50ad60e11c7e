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
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// In a namespace with an origin only the origin, a remembered absence and the key filter say that a key is not there.

// hangs are what keeps the owner of a key from answering through v.
var hangs = map[string]func(w *world, owner, v *vnode){
	"stopped": func(w *world, owner, v *vnode) { w.net.Stop(owner.ip) },
	"cut":     func(w *world, owner, v *vnode) { w.net.Cut(owner.ip, v.ip) },
	"one way": func(w *world, owner, v *vnode) { w.net.CutOneWay(owner.ip, v.ip) },
	"isolated": func(w *world, owner, v *vnode) {
		for _, other := range w.nodes {
			if other != v {
				w.net.Cut(v.ip, other.ip)
			}
		}
	},
	"killed": func(w *world, owner, v *vnode) { owner.kill() },
	"left":   func(w *world, owner, v *vnode) { owner.leave() },
}

// rows are answers to reads of rows that exist.
type rows struct {
	w                *world
	mu               sync.Mutex
	values, timeouts int
	options          []wire.Options // of reads
	refused          map[string]int
}

// told notes an answer. Only these may be told: the value, and with little time an error that names the owner.
func (n *rows) told(what string, patient bool, r *wire.Reply) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case r.Status == wire.OK && string(r.Value) == "row":
		n.values++
	case r.Status == wire.Miss:
		n.w.t.Errorf("%s: not there (%d), after %v", what, r.Why, time.Since(n.w.begun))
	case r.Status == wire.Timeout && !patient:
		n.timeouts++
	default:
		n.refused[fmt.Sprint(what, ": ", r.Status, " ", string(r.Message))]++
	}
}

// readAll reads keys through a node in every way, with a time.
func (n *rows) readAll(v *vnode, keys []string, timeout time.Duration) {
	w := n.w
	patient := timeout == 0 || timeout > 100*time.Millisecond
	var wg sync.WaitGroup
	for i, op := range []wire.Op{wire.OpGet, wire.OpLease, wire.OpMGet, wire.OpMetaGet} {
		for _, o := range n.options {
			if op == wire.OpMetaGet && o != 0 {
				continue
			}
			app, q := v.app(w.t), wire.Request{Op: op, Key: b(keys[i]), Options: o, TTLMS: wire.TTLDefault}
			q.TimeoutMS = uint32(timeout.Milliseconds())
			if op == wire.OpMGet {
				q.Key, q.Keys = nil, keysOf(keys...)
			}
			wg.Go(func() {
				defer app.nc.Close()
				app.send(&q)
				r, what := app.receive(q.Op), fmt.Sprintf("%s %v in %v", q.Op, o, timeout)
				loads := patient && o != wire.Fresh && q.Op != wire.OpMetaGet
				for i := range r.Items {
					n.told(what, loads, &r.Items[i])
				}
				if r.Items == nil {
					n.told(what, loads, &r)
				}
			})
		}
	}
	wg.Go(func() {
		ctx := context.Background()
		if timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, timeout)
			defer cancel()
		}
		it, err := v.s.Get(ctx, DefaultNamespace, keys[5], cachesidecar.GetOptions{})
		r := wire.Reply{Value: it.Value}
		switch {
		case errors.Is(err, cachesidecar.ErrNotFound):
			r.Status = wire.Miss
		case errors.Is(err, cachesidecar.ErrTimeout):
			r.Status = wire.Timeout
		case err != nil:
			r = wire.Reply{Status: wire.Internal, Message: b(err.Error())}
		}
		n.told("Get", patient, &r)
	})
	text := v.text()
	wg.Go(func() {
		defer text.Close()
		for _, command := range []string{"get %s", "mg %s v"} {
			text.Send(fmt.Sprintf(command, keys[6]) + "\r\nmn\r\n")
			got := text.UntilNoop()
			if !strings.Contains(got, "|row|") && !strings.HasPrefix(got, "SERVER_ERROR ") {
				w.t.Errorf("%s: %q, after %v", command, got, time.Since(w.begun))
			}
		}
	})
	wg.Wait()
}

// TestVirtualRowsAreThere reads rows that exist, and that no host has, while their owner hangs: in every way, with
// every time. Reads with time for a load get the row. Others are told TIMEOUT, never that the row is not there.
func TestVirtualRowsAreThere(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	for how, hang := range hangs {
		for _, voters := range policies {
			if !testenv.Long() && (how < "k") == (voters == nil) { // half of them
				continue
			}
			t.Run(fmt.Sprint(how, " with ", len(voters), " voters"), func(t *testing.T) {
				o := newDatabase(always(2 * time.Millisecond))
				withNodes(t, 3, o, Namespace{}, func(w *world) { rowsWhile(w, hang) }, voters...)
			})
		}
	}
}

func rowsWhile(w *world, hang func(w *world, owner, v *vnode)) {
	n := &rows{w: w, refused: map[string]int{}, options: []wire.Options{0, wire.StaleOK, wire.Fresh, wire.Attest}}
	owner, v := w.ownerOf("k"), w.other("k")
	v.drop("k", 0) // it makes the connection
	keys := keysIn(owner.s, DefaultNamespace, "row", true, 20)
	for _, key := range keys {
		w.origin.set(key, b("row"))
	}
	hang(w, owner, v)
	for i := range 12 {
		n.readAll(v, keys, []time.Duration{0, 10, 50, 100, 300, 1}[i%6]*time.Millisecond)
		time.Sleep(50 * time.Millisecond)
	}
	w.net.Run(owner.ip, 1)
	w.net.Heal()
	for what, times := range n.refused {
		if !strings.Contains(what, " 1 in ") && !strings.Contains(what, "METAGET") { // not fresh
			w.t.Errorf("%d times %s", times, what)
		}
	}
	if n.values < 300 {
		w.t.Errorf("only %d rows", n.values)
	}
}

// TestVirtualSlowLoadIsOne reads a key whose load takes most of a request's time, through all hosts in every way: its
// owner answers that the load goes on, so no other host loads the key too.
func TestVirtualSlowLoadIsOne(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		load  time.Duration
		first time.Duration // the time of reads that the others join; zero: there are none
		later time.Duration // how much later the others begin
	}{
		"all at once":              {700 * time.Millisecond, 0, 0},
		"the first end before":     {1100 * time.Millisecond, time.Second, 300 * time.Millisecond},
		"the first have ten times": {900 * time.Millisecond, 10 * time.Second, 100 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			o := newDatabase(always(tc.load / 2))
			withNodes(t, 3, o, Namespace{}, func(w *world) {
				o.set("k", b("row"))
				n := &rows{w: w, refused: map[string]int{}, options: []wire.Options{0, wire.StaleOK, wire.Attest}}
				keys := []string{"k", "k", "k", "k", "k", "k", "k"}
				var wg sync.WaitGroup
				for _, v := range w.nodes {
					if tc.first > 0 {
						wg.Go(func() { v.readFirst("k", n.options, tc.first) })
					}
					wg.Go(func() {
						time.Sleep(tc.later)
						n.readAll(v, keys, 0)
					})
				}
				wg.Wait()
				asked, aside := o.asked("k"), w.aside()
				if asked != 1 || aside > 0 || len(n.refused) > 0 || n.values < 40 {
					t.Errorf("%d loads, %d without the owner, %d rows, %v", asked, aside, n.values, n.refused)
				}
			})
		})
	}
}

// readFirst reads a key through a node in every way, with a time, and takes any answer.
func (v *vnode) readFirst(key string, options []wire.Options, timeout time.Duration) {
	var wg sync.WaitGroup
	for _, op := range []wire.Op{wire.OpGet, wire.OpLease, wire.OpMGet, wire.OpMetaGet} {
		for _, o := range options {
			app, q := v.app(v.w.t), wire.Request{Op: op, Key: b(key), Options: o, TimeoutMS: uint32(timeout.Milliseconds())}
			if op == wire.OpMGet {
				q.Key, q.Keys = nil, keysOf(key)
			} else if op == wire.OpMetaGet {
				q.Options = 0
			}
			wg.Go(func() {
				defer app.nc.Close()
				app.send(&q)
				app.receive(op)
			})
		}
	}
	wg.Wait()
}

// aside returns how many loads had no owner.
func (w *world) aside() (n int64) {
	for _, v := range w.nodes {
		n += v.s.engine.Namespaces.Lookup(session.DefaultNamespace).WithoutOwner.Load()
	}
	return n
}

// TestVirtualSlowLoadOutlivesAConnection has the connection to the owner give way to another while a GET waits for a
// slow load: the GET asks again on the new one, and has the row.
func TestVirtualSlowLoadOutlivesAConnection(t *testing.T) {
	t.Parallel()
	o := newDatabase(always(350 * time.Millisecond))
	withNodes(t, 2, o, Namespace{}, func(w *world) {
		o.set("k", b("row"))
		owner, v := w.ownerOf("k"), w.other("k")
		v.drop("k", 0) // it makes the connection
		first, joined := v.app(w.t), v.app(w.t)
		waiting(first, 1, "k", time.Second)
		waiting(joined, 2, "k", time.Second)
		time.Sleep(100 * time.Millisecond)
		v.s.engine.Node.Live(owner.s.engine.Node.Self()).Leave()
		is(t, "the first", first.receive(wire.OpGet), wire.OK, "row")
		is(t, "the other", joined.receive(wire.OpGet), wire.OK, "row")
		if asked, aside := o.asked("k"), w.aside(); asked != 1 || aside > 0 {
			t.Errorf("%d loads, %d without the owner", asked, aside)
		}
	})
}

// TestVirtualNoTimeNamesTheOwner reads through a host whose owner hangs, from an origin that is slower than what is
// left of the request's time: the answer names both. Such answers do not open the origin's breaker.
func TestVirtualNoTimeNamesTheOwner(t *testing.T) {
	t.Parallel()
	o := newDatabase(always(30 * time.Millisecond))
	withNodes(t, 3, o, Namespace{}, func(w *world) {
		o.set("k", b("row"))
		owner, v := w.ownerOf("k"), w.other("k")
		v.drop("k", 0)
		w.net.Stop(owner.ip)
		app := v.app(w.t)
		for range 10 {
			waiting(app, 1, "k", 50*time.Millisecond)
			r := app.receive(wire.OpGet)
			if want := owner.name + ", which owns the key, did not answer in time; the origin has not"; r.Status != wire.Timeout ||
				!strings.HasPrefix(string(r.Message), want) {
				t.Errorf("%s %v %s: want TIMEOUT, %s", r.Status, r.Why, r.Message, want)
			}
		}
		is(t, "with more time", v.get("k", 0), wire.OK, "row")
		if r := v.get("k", wire.NoLoad); r.Status != wire.Miss || r.Why != wire.Degraded {
			t.Errorf("without a load: %s, why %d", r.Status, r.Why)
		}
		w.net.Run(owner.ip, 1)
	})
}
