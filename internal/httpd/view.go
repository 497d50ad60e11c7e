package httpd

import (
	"cmp"
	"html/template"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// The most lines of a table. The page says how many are left out.
const (
	maxHosts      = 64
	maxNamespaces = 32
	maxOrigins    = 32
	maxWrong      = 12
)

// view is what the templates show. Texts in it may be hostile: html/template escapes them,
// and logs.Plain makes invisible characters visible.
type view struct {
	CSS  template.CSS
	JS   template.JS
	Main template.HTML

	Node, Version, Up, At string
	State                 string   // the first words of /readyz
	Wrong                 []string // the other ones
	MoreWrong             int
	Good                  bool
	Period                string // over which rates are counted

	Tiles     []tile
	Tiers     []tier
	States    string // of all hosts, counted
	Hosts     []host
	MoreHosts int
	Owned     string // partitions
	Lag       string
	Memory    []memory
	Names     []namespace
	MoreNames int
	Origins   []origin
	MoreOrigs int
}

// tile is a figure of the first row, with its course over the last minutes.
type tile struct {
	Name, Value, Note string
	Line              string // points of a polyline in a box of 100 × 20; "": no course
}

// tier is a line of the table "Where reads were answered".
type tier struct {
	Name, Meaning, Rate string
	Share               float64 // of the reads, 0 to 1
	Percent             string
}

// host is a line of the table of hosts.
type host struct {
	Node, Address, State, Why string
	Here, Good                bool
	Partitions, Percent       string
	Share                     float64 // of the ring, 0 to 1
	Lease, Left               string  // age of the lease, and time until it ends
}

// memory is a line of the table of memory.
type memory struct {
	Name, Meaning, Used, Limit, Percent string
	Share                               float64 // 0 to 1
}

// namespace is a line of the table of namespaces.
type namespace struct {
	Name, Reads, Hits, Writes, Errors, Entries, Memory string
	rate                                               float64 // of reads
}

// origin is a line of the table of origins.
type origin struct {
	Namespace, Kind, Loads, Mean, UnderWay, Failed, Breaker, Last, Audit string
	Good                                                                 bool
	rate                                                                 float64
}

// fill fills in all tables. Rates are counted from the sample last on; from the start on if
// it is zero. It returns the figures of which a history is kept.
func (v *view) fill(now, last *telemetry.Snapshot) point {
	st := &now.Stats
	seconds := float64(st.UptimeMS-last.Stats.UptimeMS) / 1000
	v.Node, v.Version = logs.Plain(st.Node), logs.Plain(st.Server)
	v.Up = long(time.Duration(st.UptimeMS) * time.Millisecond)
	v.Period = "since the start, " + v.Up + " ago"
	if last.Stats.UptimeMS > 0 {
		v.Period = "over the last " + long(time.Duration(seconds*float64(time.Second)))
	}
	word, why := telemetry.ConditionOf(st)
	v.State, v.Good = word, word == telemetry.Serving
	for _, w := range why {
		v.Wrong = append(v.Wrong, logs.Plain(w))
	}
	v.Wrong, v.MoreWrong = most(v.Wrong, maxWrong)
	v.fillTiers(now, last, seconds)
	v.fillHosts(now)
	v.fillMemory(st)
	v.fillNamespaces(st, &last.Stats, seconds)

	p := point{reads: rate(now.Reads.Total(), last.Reads.Total(), seconds), hits: -1}
	if reads := now.Reads.Total() - last.Reads.Total(); reads > 0 {
		p.hits = float64(now.Reads.Hits()-last.Reads.Hits()) / float64(reads)
	}
	p.p50, p.p99 = quantile(now.Batches, last.Batches, 0.5), quantile(now.Batches, last.Batches, 0.99)
	t, l := st.Total(), last.Stats.Total()
	p.writes = rate(t.Writes+t.Deletes, l.Writes+l.Deletes, seconds)
	p.loads, p.errors = rate(t.Loads.Loads, l.Loads.Loads, seconds), rate(t.Errors, l.Errors, seconds)
	return p
}

// fillTiers fills in where reads were answered.
func (v *view) fillTiers(now, last *telemetry.Snapshot, seconds float64) {
	all := now.Reads.Total() - last.Reads.Total()
	for _, t := range []struct {
		name, meaning string
		now, last     int64
	}{
		{"own entries", "hits in this host's share of the keys (L2)", now.Reads.Own, last.Reads.Own},
		{"copies", "hits in copies of other hosts' entries (L1)", now.Reads.Copies, last.Reads.Copies},
		{"other hosts", "hits at the owner, over the network", now.Reads.Peers, last.Reads.Peers},
		{"shared memory", "hits in the memory that apps share, as they report", now.Reads.Shared, last.Reads.Shared},
		{"near caches", "hits in apps' own near caches, as they report", now.Reads.Near, last.Reads.Near},
		{"origin", "values that were loaded for the read", now.Reads.Origin, last.Reads.Origin},
		{"stale", "stale values, for readers that accept them", now.Reads.Stale, last.Reads.Stale},
		{"no value", "misses", now.Reads.Missing, last.Reads.Missing},
		{"errors", "reads that failed", now.Reads.Failed, last.Reads.Failed},
	} {
		share := ratio(t.now-t.last, all)
		perSecond := perSecond(rate(t.now, t.last, seconds))
		v.Tiers = append(v.Tiers, tier{t.name, t.meaning, perSecond, share, percent(share)})
	}
}

// fillHosts fills in the hosts: this one, then those in trouble, then the others by name.
func (v *view) fillHosts(now *telemetry.Snapshot) {
	st := &now.Stats
	leases := map[string]cachesidecar.LeaseStats{}
	for _, l := range st.Cluster.Invalidations.Leases {
		leases[l.Node] = l
	}
	all, counts := 0, map[string]int{}
	for _, m := range now.Members {
		all += m.Partitions
		counts[m.State]++
	}
	for _, m := range now.Members {
		h := host{
			Node: logs.Plain(m.Node), Address: logs.Plain(m.Address), State: m.State, Why: logs.Plain(m.Why),
			Here: m.Node == st.Node, Good: m.Why == "" && m.State != "missing" && m.State != "refused",
			Partitions: count(int64(m.Partitions)), Share: ratio(int64(m.Partitions), int64(all)),
		}
		h.Percent = percent(h.Share)
		if l, ok := leases[m.Node]; ok {
			h.Lease, h.Left = "none", "0 ms"
			if l.AgeMS >= 0 {
				h.Lease, h.Left = count(l.AgeMS)+" ms", count(l.RemainingMS)+" ms"
			}
		}
		v.Hosts = append(v.Hosts, h)
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
	if !st.Cluster.Alone {
		v.Owned = count(int64(st.Cluster.Owned))
		v.Lag = short(time.Duration(st.Cluster.Invalidations.LagUS) * time.Microsecond)
	}
}

// fillMemory fills in the memory of the tiers and of the process.
func (v *view) fillMemory(st *cachesidecar.Stats) {
	for _, m := range []struct {
		name, meaning string
		used, limit   int64
	}{
		{"L2", "entries that this host owns, with their index", st.L2.Memory.Used, st.L2.Memory.Limit},
		{"L1", "copies of other hosts' entries", st.L1.Used, st.L1.Limit},
		{"buffers", "requests and answers under way", st.Connections.BufferBytes, st.Connections.Buffers.Limit},
		{"process", "resident, of the machine or its cgroup", st.Process.ResidentBytes, st.Process.MemoryLimit},
	} {
		if m.used == 0 && m.limit == 0 {
			continue // no L1 on a host that is alone
		}
		line := memory{Name: m.name, Meaning: m.meaning, Used: size(m.used), Limit: "no limit known", Percent: "–"}
		if m.limit > 0 {
			line.Share = ratio(m.used, m.limit)
			line.Limit, line.Percent = size(m.limit), percent(line.Share)
		}
		v.Memory = append(v.Memory, line)
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
			Name: logs.Plain(n.Name), rate: rate(n.Reads(), b.Reads(), seconds), Hits: "–",
			Writes:  perSecond(rate(n.Writes+n.Deletes, b.Writes+b.Deletes, seconds)),
			Errors:  perSecond(rate(n.Errors, b.Errors, seconds)),
			Entries: count(n.Entries), Memory: size(n.Bytes),
		}
		line.Reads = perSecond(line.rate)
		if reads := n.Reads() - b.Reads(); reads > 0 {
			line.Hits = percent(ratio(n.Hits-b.Hits, reads))
		}
		if n.Quota > 0 {
			line.Memory += " of " + size(n.Quota)
		}
		v.Names = append(v.Names, line)
		if n.Loads.Origin != "" {
			v.Origins = append(v.Origins, originOf(n, b, seconds))
		}
	}
	slices.SortStableFunc(v.Names, func(a, b namespace) int { return cmp.Compare(b.rate, a.rate) })
	slices.SortStableFunc(v.Origins, func(a, b origin) int {
		return cmp.Or(first(!a.Good, !b.Good), cmp.Compare(b.rate, a.rate))
	})
	v.Names, v.MoreNames = most(v.Names, maxNamespaces)
	v.Origins, v.MoreOrigs = most(v.Origins, maxOrigins)
}

// originOf returns the line of a namespace's origin.
func originOf(n, before *cachesidecar.NamespaceStats, seconds float64) origin {
	l := &n.Loads
	o := origin{
		Namespace: logs.Plain(n.Name), Kind: logs.Plain(l.Origin), rate: rate(l.Loads, before.Loads.Loads, seconds),
		Mean: short(time.Duration(l.MeanUS) * time.Microsecond), UnderWay: count(l.UnderWay),
		Failed: perSecond(rate(l.Failed, before.Loads.Failed, seconds)), Breaker: cmp.Or(l.Breaker, "–"), Last: "none",
		Good: !l.BreakerOpen, Audit: "off",
	}
	if a := &n.Audit; a.Configured {
		o.Audit = count(a.Differed) + " of " + count(a.Compared()) + " differed"
	}
	o.Loads = perSecond(o.rate)
	for _, f := range n.Failures {
		if f.Error != "" {
			o.Last = f.Calls + ", " + long(time.Duration(f.AgeMS)*time.Millisecond) + " ago: " + logs.Plain(f.Error)
			o.Good = o.Good && !telemetry.OriginFails(n, &f)
		}
	}
	return o
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
