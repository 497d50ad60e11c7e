package httpd

import (
	"cmp"
	"html/template"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// The most lines of a table. The page says how many are left out.
const (
	maxHosts      = 64
	maxNamespaces = 32
	maxOrigins    = 32
	maxWrong      = 12
)

// view is what the templates show. Texts in it may be hostile: html/template escapes them, and the
// templates make invisible characters visible with "plain".
type view struct {
	CSS  template.CSS
	JS   template.JS
	Main template.HTML

	Stats     *cachesidecar.Stats // nil: the host is closing
	At        string
	State     string   // the first words of /readyz
	Wrong     []string // the other ones
	MoreWrong int
	Good      bool
	Period    int64 // over which rates are counted, in milliseconds; 0: since the start

	Tiles     []tile
	Tiers     []tier
	States    string // of all hosts, counted
	Hosts     []host
	MoreHosts int
	Memory    []memory
	Names     []namespace
	MoreNames int
	Origins   []namespace
	MoreOrigs int
}

// tile is a figure of the first row, with its course over the last minutes.
type tile struct {
	Name, Value, Note string
	Line              string // points of a polyline in a box of 100 × 20; "": no course
}

// tier is a line of the table "Where reads were answered".
type tier struct {
	telemetry.Tier
	Rate, Share float64 // per second; of the reads, 0 to 1
}

// host is a line of the table of hosts.
type host struct {
	cachesidecar.Member
	Here, Good bool
	Share      float64                  // of the ring, 0 to 1
	Lease      *cachesidecar.LeaseStats // nil: there is none to be
}

// memory is a line of the table of memory.
type memory struct {
	Name, Meaning string
	Used, Limit   int64 // bytes; no limit: 0
}

// namespace is a line of the table of namespaces, and of that of origins.
type namespace struct {
	*cachesidecar.NamespaceStats
	Rates       telemetry.Rates
	FailedLoads float64                    // per second
	Good        bool                       // its origin
	LastFailure *cachesidecar.FailureStats // of its origin; nil: none
}

// fill fills in all tables. Rates are counted from the sample last on; from the start on if
// it is zero. It returns the figures of which a history is kept.
func (v *view) fill(now, last *telemetry.Snapshot) point {
	st := &now.Stats
	v.Stats = st
	if last.Stats.UptimeMS > 0 {
		v.Period = st.UptimeMS - last.Stats.UptimeMS
	}
	seconds := max(float64(st.UptimeMS-last.Stats.UptimeMS)/1000, 0.001)
	word, why := telemetry.ConditionOf(st)
	v.State, v.Good = word, word == telemetry.Serving
	v.Wrong, v.MoreWrong = most(why, maxWrong)
	v.fillTiers(now, last, seconds)
	v.fillHosts(now)
	v.fillMemory(st)
	v.fillNamespaces(st, &last.Stats, seconds)
	t, l := st.Total(), last.Stats.Total()
	return point{
		telemetry.RatesOf(&t, &l, seconds),
		quantile(now.Batches, last.Batches, 0.5), quantile(now.Batches, last.Batches, 0.99),
	}
}

// fillTiers fills in where reads were answered.
func (v *view) fillTiers(now, last *telemetry.Snapshot, seconds float64) {
	all := int64(0)
	for i, t := range now.Tiers {
		if i < len(last.Tiers) {
			t.Reads -= last.Tiers[i].Reads
		}
		all += t.Reads
		v.Tiers = append(v.Tiers, tier{Tier: t, Rate: telemetry.Rate(t.Reads, 0, seconds)})
	}
	for i := range v.Tiers {
		v.Tiers[i].Share = ratio(v.Tiers[i].Reads, all)
	}
}

// fillHosts fills in the hosts: this one, then those in trouble, then the others by name.
func (v *view) fillHosts(now *telemetry.Snapshot) {
	leases := map[string]*cachesidecar.LeaseStats{}
	for i, l := range now.Stats.Cluster.Invalidations.Leases {
		leases[l.Node] = &now.Stats.Cluster.Invalidations.Leases[i]
	}
	all, counts := 0, map[string]int{}
	for _, m := range now.Members {
		all += m.Partitions
		counts[m.State]++
	}
	for _, m := range now.Members {
		v.Hosts = append(v.Hosts, host{
			m, m.Node == now.Stats.Node, m.Why == "" && m.State != "missing" && m.State != "refused",
			ratio(int64(m.Partitions), int64(all)), leases[m.Node],
		})
	}
	slices.SortStableFunc(v.Hosts, func(a, b host) int {
		return cmp.Or(first(a.Here, b.Here), first(!a.Good, !b.Good), strings.Compare(a.Node, b.Node))
	})
	v.Hosts, v.MoreHosts = most(v.Hosts, maxHosts)
	var states []string
	for state, n := range counts {
		states = append(states, count(int64(n))+" "+state)
	}
	slices.Sort(states)
	v.States = strings.Join(states, ", ")
}

// fillMemory fills in the memory of the tiers and of the process.
func (v *view) fillMemory(st *cachesidecar.Stats) {
	for _, m := range []memory{
		{"L2", "entries that this host owns, with their index", st.L2.Memory.Used, st.L2.Memory.Limit},
		{"L1", "copies of other hosts' entries", st.L1.Used, st.L1.Limit},
		{"buffers", "requests and answers under way", st.Connections.BufferBytes, st.Connections.Buffers.Limit},
		{"process", "resident, of the machine or its cgroup", st.Process.ResidentBytes, st.Process.MemoryLimit},
	} {
		if m.Used > 0 || m.Limit > 0 { // a host that is alone has no L1
			v.Memory = append(v.Memory, m)
		}
	}
}

// fillNamespaces fills in the namespaces that are read most, and the origins: those in
// trouble first, then those with most loads.
func (v *view) fillNamespaces(now, last *cachesidecar.Stats, seconds float64) {
	before := map[string]*cachesidecar.NamespaceStats{}
	for i := range last.Namespaces {
		before[last.Namespaces[i].Name] = &last.Namespaces[i]
	}
	for i := range now.Namespaces {
		n := &now.Namespaces[i]
		b := cmp.Or(before[n.Name], &cachesidecar.NamespaceStats{})
		line := namespace{
			NamespaceStats: n, Rates: telemetry.RatesOf(n, b, seconds),
			FailedLoads: telemetry.Rate(n.Loads.Failed, b.Loads.Failed, seconds), Good: !n.Loads.BreakerOpen,
		}
		for j := range n.Failures {
			if f := &n.Failures[j]; f.Error != "" {
				line.LastFailure, line.Good = f, line.Good && !telemetry.OriginFails(n, f)
			}
		}
		v.Names = append(v.Names, line)
		if n.Loads.Origin != "" {
			v.Origins = append(v.Origins, line)
		}
	}
	slices.SortStableFunc(v.Names, func(a, b namespace) int { return cmp.Compare(b.Rates.Reads, a.Rates.Reads) })
	slices.SortStableFunc(v.Origins, func(a, b namespace) int {
		return cmp.Or(first(!a.Good, !b.Good), cmp.Compare(b.Rates.Loads, a.Rates.Loads))
	})
	v.Names, v.MoreNames = most(v.Names, maxNamespaces)
	v.Origins, v.MoreOrigs = most(v.Origins, maxOrigins)
}

// first orders lines for which something holds before the others.
func first(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// most returns the first n elements, and how many there are beside them.
func most[T any](list []T, n int) ([]T, int) {
	if len(list) <= n {
		return list, 0
	}
	return list[:n], len(list) - n
}
