//go:build failpoint

package hosts

import (
	"fmt"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

func init() {
	when := func(how string) func(*testing.T, func(string, ...any)) {
		return func(t *testing.T, bad func(string, ...any)) { lagDoors(t, how, bad) }
	}
	shown = append(shown, []shownGuard{
		{failpoint.DeleteBars, "TestVirtualLagDoors", when("left alone")},
		{failpoint.WriteBars, "TestVirtualLagEarly", func(t *testing.T, bad func(string, ...any)) { lagEarly(t, false, bad) }},
		{failpoint.WriteBars, "TestVirtualLagEarly", func(t *testing.T, bad func(string, ...any)) { lagEarly(t, true, bad) }},
		{failpoint.FlushBars, "TestVirtualLagDoors", when("left alone")},
		{failpoint.BegunBars, "TestVirtualLagDoors", when("killed")},
		{failpoint.HandedBars, "TestVirtualLagDoors", when("replaced by a new host")},
	}...)
}

// TestFailpointLagRandom: the random runs with replicas that lag find each of these guards to be missing.
func TestFailpointLagRandom(t *testing.T) {
	for _, g := range []failpoint.Guard{
		failpoint.DeleteBars, failpoint.WriteBars, failpoint.FlushBars, failpoint.BegunBars, failpoint.HandedBars,
	} {
		t.Run(g.String(), func(t *testing.T) {
			failpoint.Set(g)
			defer failpoint.Set()
			for seed := uint64(1); seed <= 2*tries; seed++ {
				found := ""
				laggedRun(t, seed, func(format string, args ...any) { found = fmt.Sprintf(format, args...) })
				if found != "" {
					t.Logf("run %d: %s", seed, found)
					return
				}
			}
			t.Errorf("nothing was found in %d runs", 2*tries)
		})
	}
}

// TestFailpointLagTakenOver: a load is barred if the last owner's answer comes while the load's barriers are read.
func TestFailpointLagTakenOver(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		settings := onehost.Settings()
		settings.ReplicaLag = testLag
		h := onehost.New(t, onehost.Config{Namespaces: map[string]namespaces.Settings{"lagging": settings}})
		time.Sleep(2 * testLag)
		ns := h.Engine.Namespaces.Lookup([]byte("lagging"))
		key := ns.Key([]byte("k"))
		its := kv.NewPartitionSet(kv.Partitions)
		its.Add(key.Hash.Partition())
		now := h.Engine.Clock.Read().Boot
		h.Engine.Changes.Began(&ownership.Begun{Partitions: its}, now)
		failpoint.Do(failpoint.KeyDue, func() {
			told := wire.Barriers{
				Partitions: its.Bytes(), CutMS: uint32(2 * testLag.Milliseconds()), Slots: 1,
				Keys: wire.AppendAge(nil, uint64(key.Hash), 0),
				Lags: []wire.Lag{{Namespace: "lagging", LagMS: uint32(testLag.Milliseconds())}},
			}
			if err := h.Engine.Barriers.TakeOver(&told, now, func(uint16) bool { return true }); err != nil {
				t.Error(err)
			}
		})
		if !h.Engine.Barriers.Barred(ns, key, now) {
			t.Error("a load is kept, though its key has just changed")
		}
		if h.Engine.Barriers.Barred(ns, kv.Key{Hash: key.Hash ^ 1, Namespace: ns.ID}, now) {
			t.Error("the last owner has answered, and any key is barred")
		}
	})
}
