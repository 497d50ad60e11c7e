package hosts

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// raw executes a request as it is.
func (v *vnode) raw(q wire.Request) wire.Reply {
	q.Namespace = session.DefaultNamespace
	r, _ := v.s.execute(context.Background(), &q)
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
			set := v.raw(wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("abc"), Attributes: kv.Attributes{Flags: 5}})
			time.Sleep(3 * time.Second)
			r := v.meta(key, wire.NoValue|wire.Unread)
			if r.Status != wire.OK || len(r.Value) != 0 || r.Size != 3 || r.Flags != 5 || r.Version != set.Version ||
				r.TTLMS != 0 || r.Read || r.IdleMS < 2900 || r.IdleMS > 3100 || r.Event != 0 {
				t.Errorf("%s: without the value: %+v", name, r)
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

// TestVirtualClaims checks that one of all callers on all hosts gets the claim, and that its
// SET is stored once.
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
