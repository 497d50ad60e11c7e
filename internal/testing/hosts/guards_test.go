package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/memberlist"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testhook"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// These tests are for guards of the handoff of partitions. Each makes the one moment that
// its guard is for; random faults hardly ever meet it.

// actingClock is a host's clock that can act before the embedding API reads it. It does
// not act when the store reads it, since the store holds a lock then.
type actingClock struct {
	*virtualClock
	act atomic.Pointer[func()]
}

func (c *actingClock) Read() kv.Moment {
	if act := c.act.Load(); act != nil && calledBy("(*Engine).Answer") && !calledBy("OverdueInStore") {
		(*act)()
	}
	return c.virtualClock.Read()
}

// startActing is vnode.start with an actingClock.
func (v *vnode) startActing() *actingClock {
	w := v.w
	clock := &actingClock{virtualClock: v.clock}
	v.host = w.net.Host(v.ip)
	s, err := newOn(Config{
		Node: v.name, NoSocket: true, L2Size: 8 << 20, L1Size: 1 << 20, Bind: v.ip + ":7946", Insecure: true,
		MaxStaleness: w.bound, RequestTimeout: time.Second, Join: []string{w.nodes[0].ip + ":7946", w.nodes[1].ip + ":7946"},
	}, testhook.Machine{
		Clock: clock,
		Network: cluster.Network{
			Nap:       time.Sleep,
			Listen:    func(string) (net.Listener, error) { return v.host.Listen(7947) },
			Dial:      v.host.Dial,
			Table:     ringOf,
			Transport: func(string) memberlist.Transport { return v.host.Transport(7946) },
		},
	})
	testenv.Must(w.t, err)
	ctx, stop := context.WithCancel(context.Background())
	v.s, v.stop, v.done = s, stop, make(chan error, 1)
	go func() { v.done <- s.Run(ctx) }() // ends with stop: see leave
	return clock
}

// keyOwnedBy returns a key whose partition a node owns.
func keyOwnedBy(v *vnode, prefix string) ([]byte, kv.Hash) {
	return keyOwnedIn(v, DefaultNamespace, prefix)
}

func keyOwnedIn(v *vnode, namespace, prefix string) ([]byte, kv.Hash) {
	key := b(keysIn(v.s, namespace, prefix, true, 1)[0])
	return key, v.s.engine.Namespaces.Hash(b(namespace), key)
}

// awaitOwned waits until a node owns a partition.
func (w *world) awaitOwned(v *vnode, p uint16) {
	w.t.Helper()
	for began := time.Now(); v.s.engine.Node.OwnershipEpoch(p) == 0; time.Sleep(time.Millisecond) {
		if time.Since(began) > time.Minute {
			w.t.Fatalf("%s does not come to hold partition %d", v.name, p)
		}
	}
}

// TestVirtualWriteOutlivesItsOwnership checks that a write is acknowledged only if its
// ownership lived when the write was stored. It is not acknowledged if the host did not
// run for a while just after, since another host may have taken the partition and
// accepted another write. It is not acknowledged either if the partition has come back
// meanwhile.
func TestVirtualWriteOutlivesItsOwnership(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	ctx := context.Background()
	for _, write := range []struct {
		name string
		do   func(s *Sidecar, key []byte) error
	}{
		{"set", func(s *Sidecar, key []byte) error {
			_, err := s.Set(ctx, "default", string(key), []byte("23"), cachesidecar.SetOptions{})
			return err
		}},
		{"incr", func(s *Sidecar, key []byte) error {
			_, err := s.Incr(ctx, "default", string(key), 10, cachesidecar.IncrOptions{})
			return err
		}},
		{"touch", func(s *Sidecar, key []byte) error {
			return s.Touch(ctx, "default", string(key), cachesidecar.TouchOptions{TTL: time.Minute})
		}},
		{"delete", func(s *Sidecar, key []byte) error {
			_, err := s.DeleteMulti(ctx, "default", []string{string(key)}, cachesidecar.DeleteOptions{})
			return err
		}},
	} {
		for _, back := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s back=%v", write.name, back), func(t *testing.T) {
				bubble.Test(t, func(t *testing.T) {
					w := newWorld(t, 1, 2)
					v := w.nodes[0]
					clock := v.startActing()
					w.nodes[1].start()
					w.agreed(15 * time.Second)
					key, h := keyOwnedBy(v, "key")
					mustSet(t, v.s, string(key), []byte("1"))
					ns := v.s.engine.Namespaces.Lookup(session.DefaultNamespace)
					stored := func() string {
						info, ok := v.s.engine.Store.Peek(ns.Key(key), 0)
						return fmt.Sprint(info, ok)
					}
					before := stored()
					pause := func() {
						if stored() == before {
							return
						}
						clock.act.Store(nil)
						// The pause ends at a moment at which no other goroutine of the
						// host wakes up.
						v.pause(w.bound + 12345*time.Nanosecond)
						if back {
							v.s.engine.Node.CheckPause(clock.Read().Boot)
							w.awaitOwned(v, h.Partition())
						}
					}
					synctest.Wait() // only this goroutine runs until it sleeps
					clock.act.Store(&pause)
					err := write.do(v.s, key)
					if !errors.Is(err, cachesidecar.ErrTimeout) {
						t.Errorf("got %v, want TIMEOUT", err)
					}
					if clock.act.Swap(nil) != nil {
						t.Errorf("the clock was not read after the write was stored: %s, then %s", before, stored())
					}
					w.awaitOwned(v, h.Partition())
					w.leaveAll()
				})
			})
		}
	}
}

// TestVirtualEndedOutdatesCopies checks that a host that ends an ownership outdates the
// copies of its keys that were made before. Another host has owned the partition since,
// or will own it.
func TestVirtualEndedOutdatesCopies(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 2)
		w.bound = cluster.MinBound // so that the copy is still young when it counts
		w.startAll()
		w.agreed(15 * time.Second)
		ctx := context.Background()
		a, b := w.nodes[0], w.nodes[1]
		key, h := keyOwnedBy(b, "key")
		mustSet(t, b.s, string(key), []byte("v"))
		read := func() {
			t.Helper()
			if v, err := a.s.Get(ctx, "default", string(key), cachesidecar.GetOptions{}); err != nil || string(v.Value) != "v" {
				t.Fatalf("got %q, %v", v.Value, err)
			}
		}
		read()
		began := time.Now()
		weight := b.s.engine.Node.Members()[1].Weight
		b.s.engine.Node.SetWeight(1)
		w.awaitOwned(a, h.Partition())
		b.s.engine.Node.SetWeight(weight)
		w.awaitOwned(b, h.Partition())
		if age := time.Since(began); age >= time.Second {
			t.Fatalf("the copy is %v old, and useless", age)
		}
		asked := a.s.engine.Counts.PeerReads.Load()
		read()
		if a.s.engine.Counts.PeerReads.Load() == asked {
			t.Errorf("a copy was served from before its host held the partition itself")
		}
		w.leaveAll()
	})
}

// TestOfferGivesNothingNewer checks that a host that has ended an ownership hands over
// what it could have served then, and nothing that was stored in its place since: neither
// a write that found its ownership ended when it was stored, nor a write of the next
// ownership.
func TestOfferGivesNothingNewer(t *testing.T) { offerGivesNothingNewer(t, t.Errorf) }

func offerGivesNothingNewer(t *testing.T, bad func(format string, args ...any)) {
	s, err := New(Config{Node: "a", NoSocket: true, L2Size: 8 << 20, L1Size: 1 << 20, Bind: "127.0.0.1:0"})
	testenv.Must(t, err)
	defer func() {
		s.engine.L1.Close()
		_ = s.engine.Store.Close()
	}()
	s.engine.Serves = func(uint16) bool { return true } // it does not run, and owns nothing
	ns, failed := s.engine.Namespaces.Obtain(session.DefaultNamespace, nil)
	if failed != nil {
		t.Fatal(failed)
	}
	set := func(name string) {
		t.Helper()
		q := wire.Request{Key: []byte(name), Value: []byte("v"), TTLMS: wire.TTLDefault}
		var r wire.Reply
		if s.engine.Local.Put(ns, ns.Key(q.Key), &q, s.engine.Clock.Read(), &r); r.Status != wire.OK {
			t.Fatalf("%s: %v", name, r.Err())
		}
	}
	all := kv.NewPartitionSet(kv.Partitions)
	for p := range kv.Partitions {
		all.Add(uint16(p))
	}
	names := []string{"kept", "overwritten", "new"}
	set("kept")
	set("overwritten")
	h := s.engine.Handoff
	to := kv.Process{Node: "b", Epoch: 1}
	ballot := &kv.Ballot{Clock: 1, Process: to}
	h.Ended(all, s.engine.HLC.Next(s.engine.Clock.Read().Wall))
	h.Offer(to, ballot, all)
	set("overwritten")
	set("new")

	check := func(when string, want map[string]bool) {
		t.Helper()
		fetched := map[string]bool{}
		for _, name := range names {
			var f wire.Fetched
			r := h.ServeFetch(to, &wire.Fetch{Ballot: *ballot, Namespace: "default", Key: []byte(name)})
			testenv.Must(t, wire.UnmarshalBody(r.Body, &f))
			fetched[name] = f.Found
		}
		pulled := map[string]bool{}
		for _, part := range h.OfferOf(to, *ballot).Parts(nil) {
			for e := range h.EntriesOf(part) {
				pulled[string(e.Key.Bytes)] = true
			}
		}
		for _, name := range names {
			if fetched[name] != want[name] || pulled[name] != want[name] {
				bad("%s: %s is fetched: %v, pulled: %v; want %v", when, name, fetched[name], pulled[name], want[name])
			}
		}
	}
	check("after writes that came too late", map[string]bool{"kept": true})
	h.Begin(ownership.Begun{Ballot: &kv.Ballot{Clock: 2}, Partitions: all}, nil)
	for _, name := range names {
		set(name)
	}
	check("in the next holding", nil)
}
