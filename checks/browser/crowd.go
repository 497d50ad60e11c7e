// Package browser holds the status page to a real Chromium: what a person sees and can
// read, on a phone and in the dark, with hostile names and in a large cluster.
package browser

import (
	"fmt"
	"math"
	"strings"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// Hostile are names that a page must show as they are.
var Hostile = []string{
	`<script>hacked=1</script>`,
	`"><img src=x onerror=hacked=1>`,
	`{{.Node}}</main><svg onload=hacked=1>`,
	"line\ndata: <b>event</b>\n\n",
	"\u202eright to left",
	strings.Repeat("long-", 40),
}

// crowd is a host of a large cluster whose figures grow with each reading.
type crowd struct{ readings atomic.Int64 }

// tiers returns the reads at the nth reading.
func tiers(n int64) []telemetry.Tier {
	return []telemetry.Tier{
		{Name: "own entries", Meaning: "hits in this host's share of the keys (L2)", Reads: 120_000 * n},
		{Name: "copies", Meaning: "hits in copies of other hosts' entries (L1)", Reads: 340_000 * n},
		{Name: "other hosts", Meaning: "hits at the owner, over the network", Reads: 31_000 * n},
		{Name: "shared memory", Meaning: "hits in the memory that apps share, as they report", Reads: 9_000_000 * n},
		{Name: "near caches", Meaning: "hits in apps' own near caches, as they report", Reads: 700_000 * n},
		{Name: "origin", Meaning: "values that were loaded for the read", Reads: 2_100 * n},
		{Name: "no value", Meaning: "misses", Reads: 800 * n},
	}
}

// snapshot returns the next figures of a host among 50, with 256 namespaces.
func (c *crowd) snapshot() (telemetry.Snapshot, bool) {
	n := c.readings.Add(1)
	var s telemetry.Snapshot
	st := &s.Stats
	st.Node, st.Server, st.UptimeMS = Hostile[0], "v1.2.3", 3_600_000+2000*n
	st.L1 = cachesidecar.L1Stats{Entries: 81_234 + n, Used: 60 << 20, Limit: 64 << 20}
	st.L2.Entries, st.L2.Memory = 2_345_678+n, cachesidecar.L2Memory{Used: 200 << 20, Limit: 256 << 20}
	st.Connections.BufferBytes, st.Connections.Buffers.Limit = 3<<20, 64<<20
	st.Process.ResidentBytes, st.Process.MemoryLimit = 410<<20, 2<<30
	st.NotReady, st.Cluster.Owned, st.Cluster.Members = "not joined: "+Hostile[1], 328, 50
	st.Cluster.Invalidations.LagUS = 1234
	s.Tiers = tiers(n)
	for i := range 50 {
		m := cachesidecar.Member{
			Node: fmt.Sprintf("host-%02d", i), Address: fmt.Sprintf("10.0.0.%d:7947", i+1), State: "in",
			Weight: 256, Partitions: 327,
		}
		switch {
		case i == 0:
			m.Node = st.Node
		case i < len(Hostile):
			m.Node, m.Address, m.Why = Hostile[i], Hostile[i], Hostile[i]
		case i == 10:
			m.State, m.Why, m.Partitions = "missing", "gossip has not heard of it for 12 s", 0
		}
		s.Members = append(s.Members, m)
		if i > 0 {
			st.Cluster.Invalidations.Leases = append(st.Cluster.Invalidations.Leases,
				cachesidecar.LeaseStats{Node: m.Node, AgeMS: int64(90 + i), RemainingMS: int64(1910 - i)})
		}
	}
	for i := range 256 {
		ns := cachesidecar.NamespaceStats{
			Name: fmt.Sprintf("service-%03d.of-a-team_with-a-long-name.and-a-purpose-%03d", i, i), Entries: int64(1000 * i),
			Bytes: int64(1<<20) * int64(i), Hits: int64(400*i) * n, Loaded: int64(4*i) * n, Writes: int64(i) * n,
		}
		if i < len(Hostile) {
			ns.Name, ns.Hits = Hostile[i], 1_000_000*n
		}
		if i%4 == 0 {
			ns.Quota = 1 << 30
			ns.Loads = cachesidecar.LoadStats{
				Origin: "postgres", Loads: int64(4*i) * n, Loaded: int64(4*i) * n, MeanUS: 2300, UnderWay: 2, Breaker: "closed",
			}
		}
		if i%64 == 0 {
			ns.Loads.Breaker, ns.Loads.BreakerOpen = "open", true
			ns.Failures = []cachesidecar.FailureStats{{Calls: "loads", Error: Hostile[1], AgeMS: 4000, InARow: 12}}
		}
		st.Namespaces = append(st.Namespaces, ns)
	}
	for i, share := range []uint64{0, 0, 10, 300, 700, 960, 990, 999, 1000, 1000} {
		s.Batches = append(s.Batches, telemetry.Bucket{Seconds: 1e-6 * math.Pow(4, float64(i)), Count: share * uint64(n)})
	}
	s.Batches = append(s.Batches, telemetry.Bucket{Seconds: math.Inf(1), Count: 1000 * uint64(n)})
	return s, true
}
