package hosts

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Write-throughs that end after another host has become the owner of their key.

// policies maps a policy to its voters: none for policy available.
var policies = map[string][]string{"available": nil, "consistent": {"n0", "n1", "n2"}}

// next waits until a node other than v owns a key, and reads the key there.
func (w *world) next(v *vnode, key string) *vnode {
	for {
		for _, o := range w.nodes {
			if o != v && o.s != nil && owns(o.s, DefaultNamespace, key) {
				o.get(key, 0)
				return o
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// settled checks that all nodes read what the database has, and that every write-through
// is settled.
func (w *world) settled(s *store, key string, bad func(format string, args ...any)) {
	for _, v := range w.nodes {
		if v.s == nil {
			continue
		}
		if r := v.get(key, 0); string(r.Value) != s.row(key) {
			bad("%s reads %q %s, and the origin has %q", v.name, r.Value, r.Status, s.row(key))
		}
		if n := v.s.engine.Namespaces.Lookup(session.DefaultNamespace).WriteThroughStats().Unsettled; n != 0 {
			bad("%d writes of %s are not settled", n, v.name)
		}
	}
}

// gone has ways for a key's owner to lose the key while it writes it. The returned
// function, unless nil, is called after the end of the write.
var gone = map[string]func(w *world, owner *vnode) (after func()){
	"leaves": func(w *world, owner *vnode) func() {
		go owner.leave() // ends with the write
		w.next(owner, "k")
		return nil
	},
	"has less to hold": func(w *world, owner *vnode) func() {
		owner.s.engine.Node.SetWeight(1)
		w.next(owner, "k")
		return nil
	},
	"several owners in a row": func(w *world, owner *vnode) func() {
		owner.s.engine.Node.SetWeight(1)
		w.next(owner, "k").s.engine.Node.SetWeight(1)
		time.Sleep(500 * time.Millisecond)
		w.next(owner, "k")
		return nil
	},
	"cannot reach the next, who passes it on": func(w *world, owner *vnode) func() {
		owner.s.engine.Node.SetWeight(1)
		second := w.next(owner, "k")
		w.net.Cut(owner.ip, second.ip)
		return func() {
			time.Sleep(100 * time.Millisecond)
			second.s.engine.Node.SetWeight(1)
			time.Sleep(400 * time.Millisecond)
			w.net.Heal()
		}
	},
	"cannot reach the next": func(w *world, owner *vnode) func() {
		owner.s.engine.Node.SetWeight(1)
		w.net.Cut(owner.ip, w.next(owner, "k").ip)
		return func() {
			time.Sleep(800 * time.Millisecond)
			w.net.Heal()
		}
	},
	"did not run": func(w *world, owner *vnode) func() {
		go owner.pause(12 * time.Second)
		time.Sleep(time.Millisecond)
		w.next(owner, "k")
		time.Sleep(12 * time.Second)
		return nil
	},
	"the next one dies": func(w *world, owner *vnode) func() {
		owner.s.engine.Node.SetWeight(1)
		next := w.next(owner, "k")
		w.net.Cut(owner.ip, next.ip)
		return func() {
			time.Sleep(300 * time.Millisecond)
			go next.kill()
			w.net.Heal()
			time.Sleep(5 * time.Second)
		}
	},
}

// TestVirtualWriteThroughSettles checks that the owner of a key drops what it has loaded before,
// if a late write by an earlier owner ends. Each way to lose a key is tried with one op under one policy; where
// -virtual.random is given, with both ops under both.
func TestVirtualWriteThroughSettles(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	for policy, voters := range policies {
		for i, how := range slices.Sorted(maps.Keys(gone)) {
			for _, op := range []wire.Op{wire.OpSet, wire.OpDelete} {
				if *randomRuns == 0 && ((i%2 == 0) != (op == wire.OpSet) || (i/2%2 == 0) != (voters == nil)) {
					continue
				}
				t.Run(fmt.Sprintf("%s, its owner %s, %s", op, how, policy), func(t *testing.T) {
					settles(t, how, op, voters, t.Errorf)
				})
			}
		}
	}
}

func settles(t *testing.T, how string, op wire.Op, voters []string, bad func(format string, args ...any)) {
	s := &store{database: newDatabase(always(500 * time.Microsecond))}
	throughNodes(t, 3, s, Namespace{Limits: Limits{Timeout: 30 * time.Second}}, func(w *world) {
		owner, v := w.ownerOf("k"), w.other("k")
		s.database.set("k", []byte("old"))
		is(t, "before", v.get("k", 0), wire.OK, "old")
		after := make(chan func(), 1)
		s.before = func() error {
			s.before = nil
			after <- gone[how](w, owner)
			return nil
		}
		s.after = func() error { // the origin's answer takes its time
			s.after = nil
			time.Sleep(100 * time.Millisecond)
			return nil
		}
		q := &wire.Request{Op: op, Key: []byte("k"), Value: []byte("new"), TimeoutMS: 30_000}
		if op == wire.OpDelete {
			q.Key, q.Keys = nil, [][]byte{[]byte("k")}
		}
		r := v.do(q)
		if op == wire.OpDelete {
			r = r.Items[0]
		}
		want := wire.OK // it is settled by then
		if strings.Contains(how, "the next") {
			want = wire.Timeout
		}
		if r.Status != want {
			t.Errorf("%s: %s %s, want %s", op, r.Status, r.Message, want)
		}
		if s.row("k") == "old" {
			t.Error("the origin has not written it")
		}
		if f := <-after; f != nil {
			f()
		}
		time.Sleep(time.Second)
		w.settled(s, "k", bad)
	}, voters...)
}

// TestVirtualWriteThroughSettlesWithBarrier checks that the next owner does not keep what it
// loads after a late write, for the time of the namespace's load barrier: the replica
// that it loads from may lag. This also holds if the request had its answer before the
// origin wrote.
func TestVirtualWriteThroughSettlesWithBarrier(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for policy, voters := range policies {
		for _, timeout := range []time.Duration{100 * time.Millisecond, 30 * time.Second} {
			t.Run(fmt.Sprintf("%s, a request of %v", policy, timeout), func(t *testing.T) {
				settlesWithBarrier(t, timeout, voters)
			})
		}
	}
}

func settlesWithBarrier(t *testing.T, timeout time.Duration, voters []string) {
	s := &store{database: newDatabase(always(500 * time.Microsecond))}
	limits := Limits{Timeout: 30 * time.Second}
	throughNodes(t, 3, s, Namespace{ReplicaLag: 400 * time.Millisecond, Limits: limits}, func(w *world) {
		owner, v := w.ownerOf("k"), w.other("k")
		s.database.set("k", []byte("old"))
		s.before = func() error {
			s.before = nil
			owner.s.engine.Node.SetWeight(1)
			w.next(owner, "k")                 // about 30 ms later, or 360 ms
			time.Sleep(700 * time.Millisecond) // longer than the first load barrier
			return nil
		}
		q := &wire.Request{Op: wire.OpSet, Key: []byte("k"), Value: []byte("new"), TimeoutMS: uint32(timeout.Milliseconds())}
		want := wire.OK
		if timeout < time.Second {
			want = wire.Timeout
		}
		if r := v.do(q); r.Status != want {
			t.Errorf("SET: %s %s, want %s", r.Status, r.Message, want)
		}
		for owner.s.engine.Namespaces.Lookup(session.DefaultNamespace).WriteThrough.Busy() { // the write, and its settling
			time.Sleep(time.Millisecond)
		}
		if got := s.row("k"); got != "new" {
			t.Fatalf("the origin has %q", got)
		}
		s.database.set("k", []byte("old")) // the value of a lagging replica
		time.Sleep(50 * time.Millisecond)
		is(t, "from the replica", w.ownerOf("k").get("k", 0), wire.OK, "old")
		s.database.set("k", []byte("new"))
		time.Sleep(50 * time.Millisecond)
		w.settled(s, "k", t.Errorf)
	}, voters...)
}

// TestVirtualWriteThroughSupersededAtOrigin checks a write whose owner gets the origin's answer
// after it was told of a late write by an earlier owner. The value is not kept, because
// the origin may have executed the late write last.
func TestVirtualWriteThroughSupersededAtOrigin(t *testing.T) { supersededAtOrigin(t, t.Errorf) }

func supersededAtOrigin(t *testing.T, bad func(format string, args ...any)) {
	s := &store{database: newDatabase(always(time.Millisecond))}
	throughNodes(t, 3, s, Namespace{}, func(w *world) {
		owner := w.ownerOf("k")
		late := make(chan wire.Reply)
		s.before = func() error { // in the late write
			s.before = nil
			owner.s.engine.Node.SetWeight(1)
			next := w.next(owner, "k")
			answered := make(chan struct{})
			s.after = func() error { // in the next write, whose answer comes later
				s.after = nil
				close(answered)
				time.Sleep(300 * time.Millisecond)
				return nil
			}
			go func() { late <- next.set("k", "second") }()
			<-answered
			return nil
		}
		if r := owner.set("k", "first"); r.Status != wire.OK || r.Version == 0 {
			t.Errorf("the first SET: %s %s", r.Status, r.Message)
		}
		if r := <-late; r.Status != wire.OK || r.Version == 0 {
			t.Errorf("the second SET: %s %s", r.Status, r.Message)
		}
		if got := s.row("k"); got != "first" {
			t.Fatalf("the origin has %q", got)
		}
		time.Sleep(100 * time.Millisecond)
		w.settled(s, "k", bad)
	})
}

// TestVirtualLeaveSettles checks that a host that leaves hands over at once. It waits for its
// write-throughs and until other hosts are told how they ended. It ends write-throughs
// that take too long.
func TestVirtualLeaveSettles(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	for _, takes := range []time.Duration{3 * time.Second, 12 * time.Second, 20 * time.Second} {
		t.Run(takes.String(), func(t *testing.T) {
			s := &store{database: newDatabase(always(time.Millisecond)), writing: takes / 2}
			throughNodes(t, 3, s, Namespace{Limits: Limits{Timeout: 30 * time.Second}}, func(w *world) {
				const n = 20
				owner := w.ownerOf("k0")
				var keys []string
				for i := 0; len(keys) < n; i++ {
					if k := fmt.Sprint("k", i); w.ownerOf(k) == owner {
						keys = append(keys, k)
						s.database.set(k, []byte("old"))
						go w.other(k).do(&wire.Request{Op: wire.OpSet, Key: []byte(k), Value: []byte("new"), TimeoutMS: 30_000})
					}
				}
				time.Sleep(10 * time.Millisecond)
				left := time.Now()
				go func() {
					for _, k := range keys {
						is(t, "from the next owner, meanwhile", w.next(owner, k).get(k, 0), wire.OK, "old")
					}
					if took := time.Since(left); took > 500*time.Millisecond {
						t.Errorf("the keys have gone %v after the leave began", took)
					}
				}()
				owner.leave()
				took := time.Since(left)
				if want := min(takes-10*time.Millisecond, 7500*time.Millisecond); took < want || took > want+600*time.Millisecond {
					t.Errorf("the leave took %v, and the writes %v", took, takes)
				}
				time.Sleep(100 * time.Millisecond)
				for _, k := range keys {
					w.settled(s, k, t.Errorf)
				}
			})
		})
	}
}

// TestVirtualWriteThroughUnsettledBound checks that no write-through begins, and the origin is
// not asked, if the end of too many earlier ones could not be told to other hosts.
func TestVirtualWriteThroughUnsettledBound(t *testing.T) {
	s := &store{database: newDatabase(always(time.Millisecond))}
	throughNodes(t, 2, s, Namespace{}, func(w *world) {
		owner := w.ownerOf("k")
		through, heard := owner.s.engine.Namespaces.Lookup(session.DefaultNamespace).WriteThrough, make(chan struct{})
		for i := range namespaces.MaxUnsettled {
			go through.Do(context.Background(), &namespaces.Write{
				Key: kv.Key{Hash: kv.Hash(i)},
				Now: func(context.Context) (wire.Reply, namespaces.WriteEnd, bool) {
					return wire.Reply{}, namespaces.WriteStored, false
				},
				Settle: func(context.Context) (uint64, error) { <-heard; return 0, nil },
				Lost:   func() wire.Reply { return wire.Reply{} },
			})
			synctest.Wait()
		}
		for _, v := range w.nodes {
			if r := v.set("k", "value"); r.Status != wire.Busy || !strings.Contains(string(r.Message), "none begins") {
				t.Errorf("SET: %s %s, want BUSY", r.Status, r.Message)
			}
			if r := v.remove(0, "k")[0]; r.Status != wire.Busy {
				t.Errorf("DELETE: %s %s, want BUSY", r.Status, r.Message)
			}
		}
		if s.row("k") != "" {
			t.Error("the origin was asked")
		}
		close(heard)
		synctest.Wait()
		if r := owner.set("k", "value"); r.Status != wire.OK {
			t.Errorf("SET: %s %s", r.Status, r.Message)
		}
	})
}

// TestSettleIsBetweenSidecars checks that an app cannot leave the origin out of its
// deletions.
func TestSettleIsBetweenSidecars(t *testing.T) {
	app := dial(t, start(t, Config{}))
	r := app.call(&wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte("k")}, Options: wire.LateWrite})
	if r.Status != wire.Unsupported {
		t.Errorf("%s %s, want UNSUPPORTED", r.Status, r.Message)
	}
}
