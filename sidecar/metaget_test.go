package sidecar

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// raw executes a request as it is.
func (v *vnode) raw(q wire.Request) wire.Reply {
	q.Namespace = session.DefaultNamespace
	r, _ := v.s.ask(context.Background(), &q)
	return r
}

func (v *vnode) meta(key string, o wire.Options) wire.Reply {
	return v.raw(wire.Request{Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: o})
}

// swap is a SET that compares.
func (v *vnode) swap(key, value string, compare uint64, o wire.Options) wire.Reply {
	return v.raw(wire.Request{
		Op: wire.OpSet, Mode: wire.ModeCAS, Key: []byte(key), Value: []byte(value), Compare: compare, Options: o,
		TTLMS: wire.TTLDefault,
	})
}

// through runs f for a key once through its owner and once through another host.
func through(w *world, f func(name, key string, v *vnode)) {
	for i, v := range w.nodes[:2] {
		key := fmt.Sprint("k", i)
		f("the owner", key, w.ownerOf(key))
		key += "b"
		f("another host than "+v.name, key, w.other(key))
	}
}

// TestVirtualMetaGet checks what METAGET tells, and what it changes.
func TestVirtualMetaGet(t *testing.T) {
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		through(w, func(name, key string, v *vnode) {
			if r := v.meta(key, 0); r.Status != wire.Miss || r.Claim != wire.ClaimNone {
				t.Errorf("%s: of nothing: %+v", name, r)
			}
			set := v.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("abc"), Flags: 5})
			time.Sleep(3 * time.Second)
			r := v.meta(key, wire.NoValue|wire.Unread)
			if r.Status != wire.OK || len(r.Value) != 0 || r.Size != 3 || r.Flags != 5 || r.Version != set.Version ||
				r.TTLMS != 0 || r.Read || r.IdleMS < 2900 || r.IdleMS > 3100 || r.Event != 0 {
				t.Errorf("%s: without the value: %+v", name, r)
			}
			if r := v.meta(key, 0); string(r.Value) != "abc" || r.Read {
				t.Errorf("%s: the first read: %+v", name, r)
			}
			if r := v.meta(key, 0); !r.Read {
				t.Errorf("%s: the second read: %+v", name, r)
			}
			// Every host has a copy, which a touch outdates.
			for _, v := range w.nodes {
				v.get(key, 0)
			}
			q := wire.Request{Op: wire.OpMetaGet, Key: []byte(key), TTLMS: 60_000, Options: wire.Touch}
			if r := v.raw(q); r.Status != wire.OK || r.TTLMS != 60_000 || r.Event <= r.Version || r.Version != set.Version {
				t.Errorf("%s: touched: %+v", name, r)
			}
			if r := v.get(key, 0); r.TTLMS == 0 || r.TTLMS > 60_000 {
				t.Errorf("%s: after the touch: ttl %d", name, r.TTLMS)
			}
			v.drop(key, wire.Soft)
			if r := v.raw(q); r.Status != wire.Stale || string(r.Value) != "abc" || r.Claim != wire.ClaimNone || r.Event != 0 {
				t.Errorf("%s: softened: %+v", name, r)
			}
		})
	})
}

// TestVirtualClaims checks that one of all callers gets the claim, that its SET is stored, and
// that it is not if the key has changed since.
func TestVirtualClaims(t *testing.T) {
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		through(w, func(name, key string, v *vnode) {
			number := onlyOne(w, key)
			if r := v.swap(key, "x", number+1, 0); r.Status != wire.Miss {
				t.Errorf("%s: another number: %s", name, r.Status)
			}
			if r := v.swap(key+"c", "x", number, 0); r.Status != wire.Miss {
				t.Errorf("%s: of another key: %s", name, r.Status)
			}
			if r := v.swap(key, "v", number, 0); r.Status != wire.OK || r.Version == 0 {
				t.Errorf("%s: the claim's SET: %s %s", name, r.Status, r.Message)
			}
			is(t, name+": then", v.get(key, wire.Fresh), wire.OK, "v")
			if r := v.swap(key, "x", number, 0); r.Status != wire.Exists {
				t.Errorf("%s: the same number again: %s", name, r.Status)
			}
			if r := v.meta(key, wire.Claim|wire.Create); r.Status != wire.OK || r.Claim != wire.ClaimNone || r.Number != 0 {
				t.Errorf("%s: of a value: %+v", name, r)
			}
			for change, f := range map[string]func(){
				"a deletion":      func() { v.drop(key, 0) },
				"a soft deletion": func() { v.drop(key, wire.Soft) },
				"a SET":           func() { v.set(key, "other") },
				"its time":        func() { time.Sleep(DefaultLeaseTime + time.Second) },
			} {
				v.drop(key, 0)
				r := v.meta(key, wire.Claim|wire.Create)
				if r.Status != wire.Miss || r.Claim != wire.ClaimWon || r.TTLMS != DefaultLeaseTime.Milliseconds() {
					t.Fatalf("%s, before %s: %+v", name, change, r)
				}
				f()
				want := wire.Miss // the claim has ended, and nothing is there
				if change == "a SET" {
					want = wire.Exists
				}
				if r := v.swap(key, "old", uint64(r.Number), 0); r.Status != want {
					t.Errorf("%s, after %s: %s, want %s", name, change, r.Status, want)
				}
				if r := v.get(key, wire.Fresh); string(r.Value) == "old" {
					t.Errorf("%s, after %s: the claim's value is there", name, change)
				}
			}
		})
	})
}

// onlyOne claims a key that is missing through all hosts, and returns the number.
func onlyOne(w *world, key string) uint64 {
	var won, number atomic.Int64
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			r := w.nodes[i%3].raw(wire.Request{
				Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim | wire.Create, LeaseMS: 60_000,
			})
			if r.Claim == wire.ClaimWon {
				won.Add(1)
			}
			old := number.Swap(r.Number)
			if r.Status != wire.Miss || r.Claim == wire.ClaimNone || old != 0 && old != r.Number || r.TTLMS < 59_000 || r.TTLMS > 60_000 {
				w.t.Errorf("METAGET: %+v, the number was %d", r, old)
			}
		})
	}
	all.Wait()
	if won.Load() != 1 {
		w.t.Errorf("%d callers have the claim", won.Load())
	}
	return uint64(number.Load())
}

// TestVirtualRenewal checks claims of softened values, and of values that end soon.
func TestVirtualRenewal(t *testing.T) {
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		through(w, func(name, key string, v *vnode) {
			set := v.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("1"), TTLMS: 10_000})
			q := wire.Request{
				Op: wire.OpMetaGet, Key: []byte(key), TTLMS: wire.TTLDefault, Options: wire.Claim, RenewMS: 5000,
			}
			if r := v.raw(q); r.Status != wire.OK || r.Claim != wire.ClaimNone {
				t.Errorf("%s: 10 s left: %+v", name, r)
			}
			time.Sleep(6 * time.Second)
			first, second := v.raw(q), v.raw(q)
			if first.Status != wire.OK || first.Claim != wire.ClaimWon || first.Number == 0 || first.TTLMS > 4000 {
				t.Errorf("%s: 4 s left: %+v", name, first)
			}
			if second.Claim != wire.ClaimTaken || second.Number != first.Number || string(second.Value) != "1" {
				t.Errorf("%s: the second: %+v", name, second)
			}
			if r := v.swap(key, "2", uint64(first.Number), 0); r.Status != wire.OK || r.Version <= set.Version {
				t.Errorf("%s: the renewal: %+v", name, r)
			}
			is(t, name+": renewed", v.get(key, wire.Fresh), wire.OK, "2")

			version := v.get(key, wire.Fresh).Version
			soft := wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, Options: wire.Soft, StaleMS: 20_000}
			soft.Compare = version + 1
			if r := v.raw(soft).Items[0]; r.Status != wire.Exists || r.Version != version {
				t.Errorf("%s: a deletion of another version: %+v", name, r)
			}
			soft.Compare = version
			if r := v.raw(soft).Items[0]; r.Status != wire.OK {
				t.Errorf("%s: a deletion of the version: %+v", name, r)
			}
			q.RenewMS = 0
			first, second = v.raw(q), v.raw(q)
			if first.Status != wire.Stale || first.Claim != wire.ClaimWon || string(first.Value) != "2" || first.TTLMS > 20_000 {
				t.Errorf("%s: a softened value: %+v", name, first)
			}
			if second.Status != wire.Stale || second.Claim != wire.ClaimTaken || second.Number != first.Number {
				t.Errorf("%s: the second: %+v", name, second)
			}
			if r := v.swap(key, "x", version, 0); r.Status != wire.Miss {
				t.Errorf("%s: the softened version: %s, want MISS", name, r.Status)
			}
			if r := v.swap(key, "x", version, wire.StaleOK); r.Status != wire.Stale || r.Version != version {
				t.Errorf("%s: the softened version, with stale_ok: %+v, want STALE", name, r)
			}
			if r := v.swap(key, "3", uint64(first.Number), 0); r.Status != wire.OK {
				t.Errorf("%s: the claim: %+v", name, r)
			}
			is(t, name+": loaded", v.get(key, wire.Fresh), wire.OK, "3")
		})
	})
}

// TestVirtualMetaGetLoads checks METAGET in a namespace with an origin.
func TestVirtualMetaGetLoads(t *testing.T) {
	d := newDatabase(always(5 * time.Millisecond))
	withNodes(t, 3, d, Namespace{}, func(w *world) {
		through(w, func(name, key string, v *vnode) {
			d.set(key, []byte("row of "+key))
			if r := v.meta(key, wire.NoLoad|wire.Claim|wire.Create); r.Status != wire.Miss || r.Claim != wire.ClaimNone {
				t.Errorf("%s: without a load: %+v", name, r)
			}
			r := v.raw(wire.Request{Op: wire.OpMetaGet, Key: []byte(key), TTLMS: 60_000, Options: wire.Touch | wire.Claim})
			if r.Status != wire.OK || len(r.Value) == 0 || int(r.Size) != len(r.Value) || r.TTLMS != 60_000 || r.Claim != wire.ClaimNone {
				t.Errorf("%s: loaded: %+v", name, r)
			}
			if got := v.get(key, wire.Fresh); !bytes.Equal(got.Value, r.Value) || got.Version != r.Version {
				t.Errorf("%s: then it is %+v", name, got)
			}
		})
	})
}

// TestVirtualJoin checks that no append is lost, through all hosts, whatever the length.
func TestVirtualJoin(t *testing.T) {
	withNodes(t, 3, nil, Namespace{}, func(w *world) {
		for _, size := range []int{1, 10_000} {
			key := fmt.Sprint("k", size)
			var all sync.WaitGroup
			for i := range 30 {
				all.Go(func() {
					r := w.nodes[i%3].raw(wire.Request{
						Op: wire.OpSet, Mode: wire.ModeAppend + wire.Mode(i%2), Key: []byte(key), Options: wire.Create,
						Value: bytes.Repeat([]byte{byte('a' + i)}, size), TTLMS: wire.TTLDefault,
					})
					if r.Status != wire.OK {
						t.Errorf("%d bytes: %s %s", size, r.Status, r.Message)
					}
				})
			}
			all.Wait()
			r := w.other(key).get(key, wire.Fresh)
			for i := range 30 {
				if n := bytes.Count(r.Value, []byte{byte('a' + i)}); n != size {
					t.Errorf("%d bytes: %d of %c", size, n, 'a'+i)
				}
			}
		}
	})
}

// TestVirtualAdditions checks the calls of the embedding API that version 2 has added.
func TestVirtualAdditions(t *testing.T) {
	ctx := context.Background()
	withNodes(t, 2, nil, Namespace{}, func(w *world) {
		for _, v := range w.nodes {
			s, key := v.s, "of "+v.name
			if _, err := s.Append(ctx, "default", key, []byte("1"), cachesidecar.AppendOptions{}); err == nil {
				t.Error("an append to nothing")
			}
			_, err := s.Append(ctx, "default", key, []byte("1"), cachesidecar.AppendOptions{Create: true, TTL: time.Hour})
			if err != nil {
				t.Error(err)
			}
			if _, err := s.Prepend(ctx, "default", key, []byte("1"), cachesidecar.AppendOptions{}); err != nil {
				t.Error(err)
			}
			if n, err := s.IncrUnsigned(ctx, "default", key, 1<<64-1, cachesidecar.UnsignedOptions{}); n != 10 || err != nil {
				t.Error(n, err)
			}
			if n, err := s.DecrUnsigned(ctx, "default", key, 11, cachesidecar.UnsignedOptions{}); n != 0 || err != nil {
				t.Error(n, err)
			}
			o := cachesidecar.UnsignedOptions{Create: true, Initial: 1<<64 - 1}
			if n, err := s.IncrUnsigned(ctx, "default", key+"n", 1, o); n != 1<<64-1 || err != nil {
				t.Error(n, err)
			}
			it, err := s.GetAndTouch(ctx, "default", key, time.Minute)
			if err != nil || string(it.Value) != "0" || it.TTL != time.Minute {
				t.Error(it, err)
			}
			if it, err = s.Get(ctx, "default", key, cachesidecar.GetOptions{}); err != nil || it.TTL > time.Minute {
				t.Error(it, err)
			}
			if _, err := s.GetAndTouch(ctx, "default", key, 0); err == nil {
				t.Error("a TTL of 0")
			}
		}
	})
}
