package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

const testLag = 10 * time.Second

// TestReplicaLag checks that a deletion raises a load barrier on its key for as long as
// the request says, at most for the namespace's replica_lag. A load that begins meanwhile
// is not kept. A value given to the key raises one for that replica_lag, and ends none.
func TestReplicaLag(t *testing.T) {
	set := func(key string, mode wire.Mode) wire.Request {
		return wire.Request{Op: wire.OpSet, Key: []byte(key), Value: []byte("v"), Mode: mode, TTLMS: 1}
	}
	del := func(key string, hold time.Duration, o wire.Options) wire.Request {
		return wire.Request{Op: wire.OpDelete, Keys: [][]byte{[]byte(key)}, ReplicaLagMS: uint32(hold.Milliseconds()), Options: o}
	}
	for _, tc := range []struct {
		name      string
		namespace string
		ask, want time.Duration
		options   wire.Options
		then      []wire.Request
	}{
		{"its namespace's hold", "lagging", 0, testLag, 0, nil},
		{"less", "lagging", time.Second, time.Second, 0, nil},
		{"more", "lagging", time.Hour, testLag, 0, nil},
		{"soft", "lagging", 0, testLag, wire.Soft, nil},
		{"in a namespace without", "default", time.Second, 0, 0, nil},
		{"then set", "lagging", 0, testLag, 0, []wire.Request{set("k", wire.ModeSet)}},
		{"then counted", "lagging", 0, testLag, 0, []wire.Request{{Op: wire.OpIncr, Key: []byte("k"), Delta: 1, Create: true, TTLMS: 1}}},
		{"then set where there must be a value", "lagging", 0, testLag, 0, []wire.Request{set("k", wire.ModeReplace)}},
		{"less, then set", "lagging", time.Second, testLag, 0, []wire.Request{set("k", wire.ModeSet)}},
		{"less, then set where there must be a value", "lagging", time.Second, time.Second, 0, []wire.Request{set("k", wire.ModeReplace)}},
		{"less, then touched", "lagging", time.Second, time.Second, 0, []wire.Request{{Op: wire.OpTouch, Key: []byte("k"), TTLMS: 1}}},
		{"then set and deleted", "lagging", 0, testLag, 0, []wire.Request{set("k", wire.ModeSet), del("k", time.Second, 0)}},
		{"then deleted with less", "lagging", 0, testLag, 0, []wire.Request{del("k", time.Second, 0)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				h := lagging(t)
				time.Sleep(testLag)
				if tc.options != 0 {
					q := set("k", wire.ModeSet)
					h.Do(q)
				}
				accepted := time.Now()
				for i, q := range append([]wire.Request{del("k", tc.ask, tc.options)}, tc.then...) {
					q.Namespace = []byte(tc.namespace)
					if r := h.Do(q); r.Status.IsError() {
						t.Errorf("step %d: %s %s", i, r.Status, r.Message)
					}
				}
				if tc.want > 0 {
					time.Sleep(tc.want - 1)
					if kept(h, tc.namespace) {
						t.Errorf("a load that begins within %v is kept", tc.want)
					}
					time.Sleep(time.Nanosecond)
				} else {
					time.Sleep(time.Millisecond) // what was set has ended
				}
				if !kept(h, tc.namespace) {
					t.Errorf("a load that begins %v after the deletion is not kept", time.Since(accepted))
				}
			})
		})
	}
}

// lagging returns a host whose namespace "lagging" has a replica_lag. It and the default
// namespace have an origin.
func lagging(t *testing.T) *onehost.Host {
	origin := onehost.NewOrigin(0)
	origin.Put("k", []byte("row"))
	settings := onehost.Settings()
	settings.Origin = origin.ReadOnly()
	without := settings
	settings.ReplicaLag = testLag
	return onehost.New(t, onehost.Config{Namespaces: map[string]namespaces.Settings{
		namespaces.Default: without, "lagging": settings,
	}})
}

// kept reports whether the host keeps the result of a load that begins now.
func kept(h *onehost.Host, namespace string) bool {
	get := func(o wire.Options) wire.Reply {
		return h.Do(wire.Request{Op: wire.OpGet, Namespace: []byte(namespace), Key: []byte("k"), Options: o})
	}
	return get(wire.NoLoad).Status == wire.Miss && string(get(0).Value) == "row" && get(wire.NoLoad).Status == wire.OK
}

// TestReplicaLagAtTheStart checks that a host keeps no load until all barriers of an
// earlier process have ended.
func TestReplicaLagAtTheStart(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := lagging(t)
		time.Sleep(testLag - 1)
		if kept(h, "lagging") || !kept(h, "default") {
			t.Error("at the start, a load is kept, or it is not in a namespace without a lag")
		}
		time.Sleep(time.Nanosecond)
		if !kept(h, "lagging") {
			t.Errorf("%v after the start a load is not kept", testLag)
		}
	})
}

// TestReplicaLagOfFills checks that what an app has loaded within the lag is not kept.
func TestReplicaLagOfFills(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		h := onehost.New(t, onehost.Config{Namespaces: onehost.One(func(s *namespaces.Settings) { s.ReplicaLag = testLag })})
		time.Sleep(testLag)
		for i, want := range []wire.Status{wire.NotStored, wire.OK} {
			key := fmt.Sprint("k", i)
			h.Delete(key, 0)
			if want == wire.OK {
				time.Sleep(testLag)
			}
			if r := h.Fill(key, h.Lease(key, 0).Token, "v"); r.Status != want {
				t.Errorf("FILL: %s %s, want %s", r.Status, r.Message, want)
			}
		}
	})
}

// TestHandOverOfBarriers: what one host knows of changes, another knows after it was told, as long ago or
// later by 2 %. Partitions that it is not told of, or that it does not wait for, may have changed until now.
func TestHandOverOfBarriers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		settings := func(lag time.Duration) namespaces.Settings {
			s := onehost.Settings()
			s.ReplicaLag = lag
			return s
		}
		host := func() *onehost.Host {
			return onehost.New(t, onehost.Config{Namespaces: map[string]namespaces.Settings{
				"long": settings(testLag), "short": settings(time.Second), "flushed": settings(testLag),
			}})
		}
		from, to := host(), host()
		time.Sleep(2 * testLag)
		name := func(h *onehost.Host, ns string) *namespaces.Namespace { return h.Engine.Namespaces.Lookup([]byte(ns)) }
		barred := func(h *onehost.Host, ns, key string) bool {
			n := name(h, ns)
			return h.Engine.Barriers.Barred(n, n.Key([]byte(key)), h.Engine.Clock.Read().Boot)
		}
		for _, ns := range []string{"long", "short"} {
			from.Do(wire.Request{Op: wire.OpSet, Namespace: []byte(ns), Key: []byte("set"), Value: []byte("v")})
			from.Do(wire.Request{Op: wire.OpDelete, Namespace: []byte(ns), Keys: [][]byte{[]byte("held")}, ReplicaLagMS: 500})
		}
		from.Do(wire.Request{Op: wire.OpFlush, Namespace: []byte("flushed")})
		time.Sleep(100 * time.Millisecond)
		all := kv.NewPartitionSet(kv.Partitions)
		for p := range uint16(kv.Partitions) {
			all.Add(p)
		}
		told := from.Engine.Barriers.HandOver(all)
		if len(told) != 1 {
			t.Fatalf("%d", len(told))
		}
		if err := to.Engine.Barriers.TakeOver(&told[0], 0, func(uint16) bool { return true }); err != nil {
			t.Fatal(err)
		}
		type asked struct{ ns, key string }
		for _, step := range []struct {
			after time.Duration
			want  map[asked]bool
		}{
			{0, map[asked]bool{{"long", "set"}: true, {"short", "set"}: true, {"long", "held"}: true, {"short", "held"}: true, {"long", "other"}: false, {"flushed", "other"}: true}},
			{650 * time.Millisecond, map[asked]bool{{"long", "held"}: false, {"short", "held"}: false, {"short", "set"}: true}},
			{300 * time.Millisecond, map[asked]bool{{"short", "set"}: false, {"long", "set"}: true}},
			{testLag, map[asked]bool{{"long", "set"}: false, {"flushed", "other"}: false}},
		} {
			time.Sleep(step.after)
			for k, want := range step.want {
				if got := barred(to, k.ns, k.key); got != want {
					t.Errorf("%v later: %v is barred: %v", step.after, k, got)
				}
			}
		}
		to.Engine.Barriers.TakeOver(&wire.Barriers{}, 0, func(uint16) bool { return true })
		if err := to.Engine.Barriers.TakeOver(&wire.Barriers{Keys: []byte{1}}, 0, nil); err == nil {
			t.Error("what is malformed is taken")
		}
	})
}
