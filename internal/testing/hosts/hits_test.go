package hosts

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// reported sends a report of reads that an app has answered itself.
func (c *rawConn) reported(q wire.Request) {
	c.t.Helper()
	q.Op = wire.OpHits
	if r := c.call(&q); r.Status != wire.OK {
		c.t.Fatalf("%s %s", r.Status, r.Message)
	}
}

func statsOf(s *Sidecar, namespace string) cachesidecar.NamespaceStats {
	for _, ns := range s.telemetry.Stats().Namespaces {
		if ns.Name == namespace {
			return ns
		}
	}
	return cachesidecar.NamespaceStats{}
}

// requestsOf returns the requests that /metrics has, by namespace, op, result and tier.
func requestsOf(t *testing.T, s *Sidecar) map[string]float64 {
	t.Helper()
	families, err := s.telemetry.Registry.Gather()
	testenv.Must(t, err)
	all := map[string]float64{}
	for _, f := range families {
		if f.GetName() != telemetry.MetricPrefix+"requests_total" {
			continue
		}
		for _, m := range f.Metric {
			of := map[string]string{}
			for _, l := range m.Label {
				of[l.GetName()] = l.GetValue()
			}
			all[strings.Join([]string{of["namespace"], of["op"], of["result"], of["tier"]}, " ")] = m.Counter.GetValue()
		}
	}
	return all
}

// TestReportedHits checks that what apps report is in the counts of the namespace, in the hit
// ratio, in the metrics and among the hottest keys.
func TestReportedHits(t *testing.T) {
	s := start(t, Config{})
	app := dial(t, s)
	for _, ns := range []string{"default", "users"} {
		app.call(&wire.Request{Op: wire.OpSet, Namespace: b(ns), Key: b("k"), Value: b("v")})
	}
	app.call(&wire.Request{Op: wire.OpGet, Namespace: b("users"), Key: b("none")})
	for range 100 { // each key stands for 1,200 reads
		app.reported(wire.Request{Namespace: b("users"), Keys: [][]byte{b("k"), b("k"), b("other")}, Hits: wire.Hits{Shared: 3000, Absent: 100, Near: 500}})
	}
	app.reported(wire.Request{Hits: wire.Hits{Shared: 7}})
	ns := statsOf(s, "users")
	if ns.SharedHits != 300_000 || ns.NearHits != 50_000 || ns.Hits != 350_000 || ns.Misses != 10_001 || ns.Reads() != 360_001 {
		t.Errorf("%+v", ns)
	}
	if ns := statsOf(s, "default"); ns.SharedHits != 7 || ns.Reads() != 7 {
		t.Errorf("default: %+v", ns)
	}
	if n := s.telemetry.Stats().Memory.Hits; n != 310_007 {
		t.Errorf("%d reads of the shared memory", n)
	}
	snapshot, _ := s.telemetry.Snapshot()
	tiers, all := map[string]int64{}, int64(0)
	for _, tier := range snapshot.Tiers {
		tiers[tier.Name] = tier.Reads
		all += tier.Reads
	}
	if tiers["shared memory"] != 300_007 || tiers["near caches"] != 50_000 || tiers["no value"] != 10_001 || all != 360_008 {
		t.Errorf("the status page: %v", tiers)
	}
	for labels, want := range map[string]float64{
		"users GET hit shared": 300_000, "users GET hit near": 50_000, "users GET miss shared": 10_000,
		"users GET miss ": 1, "default GET hit shared": 7,
	} {
		if got := requestsOf(t, s)[labels]; got != want {
			t.Errorf("/metrics has %v requests %s, want %v", got, labels, want)
		}
	}
	top, reads := app.hot(&wire.Request{Options: wire.All})
	if !near(reads["users/k"], 240_000) || !near(reads["users/other"], 120_000) || !near(top.Reads, 360_000) {
		t.Errorf("%v of %d reads, want 240,000 and 120,000", reads, top.Reads)
	}
}

// TestReportsThatLie checks what an app can do that reports what it likes.
func TestReportsThatLie(t *testing.T) {
	s := start(t, Config{})
	app := dial(t, s)
	app.call(&wire.Request{Op: wire.OpSet, Key: b("k"), Value: b("v")})
	app.reported(wire.Request{Namespace: b("unknown"), Keys: [][]byte{b("k")}, Hits: wire.Hits{Shared: 5}})
	if ns := statsOf(s, "unknown"); ns.Name != "" {
		t.Errorf("a report makes a namespace: %+v", ns)
	}
	app.reported(wire.Request{Keys: [][]byte{{}, b(strings.Repeat("x", 2000)), b("absent")}, Hits: wire.Hits{Shared: 1}})
	s.engine.Namespaces.Lookup(b("default")).Counts[wire.OpGet][namespaces.HitShared].Store(1 << 50)
	app.reported(wire.Request{Hits: wire.Hits{Shared: wire.MaxHits}})
	if ns := statsOf(s, "default"); ns.SharedHits != 1<<50 || ns.Reads() < ns.SharedHits {
		t.Errorf("the count has no end: %+v", ns)
	}
	app.reported(wire.Request{Keys: slices.Repeat([][]byte{b("k")}, wire.MaxKeys), Hits: wire.Hits{Near: wire.MaxHits}})
	if top, _ := app.hot(&wire.Request{Options: wire.All}); top.Keys[0].Share < 0 || top.Keys[0].Share > 1 {
		t.Errorf("%+v", top)
	}
	if r := app.call(&wire.Request{Op: wire.OpGet, Key: b("k")}); r.Status != wire.OK {
		t.Errorf("%s %s", r.Status, r.Message)
	}
}
