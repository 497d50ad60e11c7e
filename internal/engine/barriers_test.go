package engine_test

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
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

// TestReloadLagOfLateDeletion: a deletion that comes while a replica_lag grows, and has no
// barrier of its own, keeps loads out for the whole replica_lag all the same.
func TestReloadLagOfLateDeletion(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		origin := onehost.NewOrigin(0)
		origin.Put("k", []byte("row"))
		clock := onehost.NewClock()
		names := onehost.One(func(s *namespaces.Settings) { s.Origin = origin.ReadOnly() })
		h := onehost.New(t, onehost.Config{Clock: clock, Namespaces: names})
		next, ns := h.Config.Namespaces, names[namespaces.Default]
		ns.ReplicaLag = testLag
		next.Configured = map[string]namespaces.Settings{namespaces.Default: ns}
		plan, err := h.Namespaces.Prepare(t.Context(), next)
		testenv.Must(t, err)
		readings, lagged := 0, false
		clock.Before(func() { // the second reading of a reload comes before its settings take effect
			if readings++; readings != 2 {
				return
			}
			clock.Before(nil)
			time.Sleep(4 * time.Second)
			lagged = h.Namespaces.MostReplicaLag() > 0
			if r := h.Delete("k", 0); r.Status != wire.Miss {
				t.Error(r.Status)
			}
		})
		h.Reload(plan)
		if lagged || readings != 2 || h.Namespaces.MostReplicaLag() != testLag {
			t.Fatal("the deletion did not come between the beginning of the reload and its settings")
		}
		time.Sleep(8 * time.Second)
		h.Get("k", 0)
		h.Get("k", 0)
		if n := origin.Asked("k"); n != 2 {
			t.Errorf("%d loads, want 2: the first is kept %v after the deletion, of a replica_lag of %v", n, 8*time.Second, testLag)
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

// withLags returns a host with namespaces of some replica_lag; zero: none.
func withLags(t *testing.T, lags map[string]time.Duration) *onehost.Host {
	all := map[string]namespaces.Settings{}
	for name, lag := range lags {
		s := onehost.Settings()
		s.ReplicaLag = lag
		all[name] = s
	}
	return onehost.New(t, onehost.Config{Namespaces: all})
}

func allPartitions() kv.PartitionSet {
	all := kv.NewPartitionSet(kv.Partitions)
	for p := range uint16(kv.Partitions) {
		all.Add(p)
	}
	return all
}

func awaitedAll(uint16) bool { return true }

// TestHandOverOfBarriers: what one host knows of changes, another knows after it was told, as long ago or
// later by 2 %. Partitions that it is not told of, or that it does not wait for, may have changed until now.
func TestHandOverOfBarriers(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		lags := map[string]time.Duration{"long": testLag, "short": time.Second, "flushed": testLag}
		from, to := withLags(t, lags), withLags(t, lags)
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
		told := from.Engine.Barriers.HandOver(allPartitions())
		if len(told) != 1 {
			t.Fatalf("%d", len(told))
		}
		testenv.Must(t, to.Engine.Barriers.TakeOver(&told[0], 0, awaitedAll))
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
	})
}

// TestHandOverOfOtherLags: a host notes changes for its own lags. The next owner keeps its barrier on all
// keys unless the last one has all of its lags.
func TestHandOverOfOtherLags(t *testing.T) {
	here := map[string]time.Duration{"long": testLag, "short": time.Second, "none": 0}
	for _, tc := range []struct {
		name   string
		there  map[string]time.Duration
		forget bool // the last owner tells no lags
		lifted bool
	}{
		{"the same", here, false, true},
		{"one more", map[string]time.Duration{"long": testLag, "short": time.Second, "none": time.Second}, false, true},
		{"one less", map[string]time.Duration{"long": testLag, "short": 0}, false, false},
		{"a shorter one", map[string]time.Duration{"long": testLag, "short": time.Second / 2}, false, false},
		{"a longer one", map[string]time.Duration{"long": testLag, "short": 2 * time.Second}, false, false},
		{"all of them other namespaces", map[string]time.Duration{"other": testLag}, false, false},
		{"not told", here, true, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				from, to := withLags(t, tc.there), withLags(t, here)
				time.Sleep(3 * testLag)
				begun := to.Engine.Clock.Read().Boot
				to.Engine.Changes.Began(&ownership.Begun{Partitions: allPartitions()}, begun)
				told := from.Engine.Barriers.HandOver(allPartitions())
				if tc.forget {
					told[0].Lags = nil
				}
				testenv.Must(t, to.Engine.Barriers.TakeOver(&told[0], begun, awaitedAll))
				for name, lag := range here {
					ns := to.Engine.Namespaces.Lookup([]byte(name))
					barred := func() bool {
						return to.Engine.Barriers.Barred(ns, ns.Key([]byte("k")), to.Engine.Clock.Read().Boot)
					}
					if want := lag > 0 && !tc.lifted; barred() != want {
						t.Errorf("%s is barred: %v", name, !want)
					}
				}
			})
		})
	}
}

// TestMalformedHandOver: what no host tells is refused, and none of it is noted.
func TestMalformedHandOver(t *testing.T) {
	const slots = invalidation.DefaultBarriers
	bubble.Test(t, func(t *testing.T) {
		h := withLags(t, map[string]time.Duration{"lagging": testLag})
		time.Sleep(2 * testLag)
		ns := h.Engine.Namespaces.Lookup([]byte("lagging"))
		key := ns.Key([]byte("k"))
		ages := func(n int) []byte { return bytes.Repeat(wire.AppendAge(nil, uint64(key.Hash), 0), n) }
		for _, tc := range []struct {
			name string
			told wire.Barriers
		}{
			{"nothing", wire.Barriers{}},
			{"slots of no power of two", wire.Barriers{Slots: 12, Keys: ages(1)}},
			{"too many slots", wire.Barriers{Slots: 128 * slots, Keys: ages(1)}},
			{"the most slots", wire.Barriers{Slots: 1 << 31, Keys: ages(1)}},
			{"half a key", wire.Barriers{Slots: slots, Keys: append(ages(1), 1)}},
			{"half a floor", wire.Barriers{Slots: slots, Keys: ages(1), Floors: []byte{1}}},
			{"half a partition", wire.Barriers{Slots: slots, Keys: ages(1), Since: []byte{1}}},
			{"more keys than slots", wire.Barriers{Slots: 1, Keys: ages(2)}},
			{"more floors than slots", wire.Barriers{Slots: 2, Keys: ages(1), Floors: ages(3)}},
			{"too many keys", wire.Barriers{Slots: 2 * slots, Keys: ages(slots + 1)}},
			{"too many floors", wire.Barriers{Slots: 2 * slots, Keys: ages(1), Floors: ages(slots + 1)}},
			{"too many partitions", wire.Barriers{Slots: slots, Keys: ages(1), Since: ages(kv.Partitions + 1)}},
		} {
			tc.told.Partitions, tc.told.Lags = allPartitions().Bytes(), []wire.Lag{{Namespace: "lagging", LagMS: 10_000}}
			err := h.Engine.Barriers.TakeOver(&tc.told, 0, func(uint16) bool {
				t.Errorf("%s: a barrier is lifted", tc.name)
				return false
			})
			if err == nil || h.Engine.Barriers.Barred(ns, key, h.Engine.Clock.Read().Boot) {
				t.Fatalf("%s: %v, or a part of it is noted", tc.name, err)
			}
		}
		full := wire.Barriers{Slots: slots, Keys: ages(slots), Floors: ages(slots), Since: ages(kv.Partitions)}
		if err := h.Engine.Barriers.TakeOver(&full, 0, awaitedAll); err != nil {
			t.Errorf("all that a host may tell: %v", err)
		}
	})
}

// TestFloorsWithTheirAges: a flush that a flush of all ends meanwhile is told with its age, or not at all.
func TestFloorsWithTheirAges(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		d := onehost.New(t, onehost.Config{}).Engine.Delegate
		done := make(chan struct{})
		go func() { // ends with its flushes
			defer close(done)
			for v := uint64(1); v <= 2000; v++ {
				d.LearnFlushes([]wire.Floor{{Namespace: "one", Version: 2 * v}, {Version: 2*v + 1}})
			}
		}()
		for told := 0; ; told++ {
			for _, f := range d.Floors() {
				if f.AgeMS > 0 {
					t.Fatalf("answer %d: a flush of %q is %d ms old", told, f.Namespace, f.AgeMS)
				}
			}
			select {
			case <-done:
				return
			default:
			}
		}
	})
}
