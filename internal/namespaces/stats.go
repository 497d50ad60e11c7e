package namespaces

import (
	"sort"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// LoadStats returns the loads' part of STATS; zero if there never was an origin.
func (ns *Namespace) LoadStats() cachesidecar.LoadStats {
	if ns.Loads == nil {
		return cachesidecar.LoadStats{}
	}
	l, g := ns.Loads.Stats(), ns.past.stats(ns.Origin)
	if ns.Origin != nil {
		ns.Origin.loads.sees(ns.Origin.Guard)
		l.Origin, l.Breaker = ns.Origin.Name, g.Breaker
		l.BreakerOpen, l.BreakerHalfOpen = g.Breaker == "open", g.Breaker == "half-open"
	}
	l.Opened = int64(g.Opened)
	l.Aside, l.MeanUS = ns.WithoutOwner.Load(), ns.Took.Mean().Microseconds()
	l.Loaded = l.Loads - l.Absent - l.Failed - l.UnderWay
	l.Shed += int64(g.ShedQueue + g.ShedRate + g.ShedBreaker)
	l.Calls, l.Retries = int64(g.Calls), int64(g.Retries)
	return l
}

// Requests returns the number of requests of apps, and of those that ended with an error.
func (ns *Namespace) Requests() (all, failed int64) {
	for op := range ns.Counts {
		for o := range ns.Counts[op] {
			all += ns.Counts[op][o].Load()
		}
		failed += ns.Counts[op][Failed].Load()
	}
	return all, failed
}

// Stats returns the statistics of every namespace, in the order of their names.
func (n *Table) Stats() []cachesidecar.NamespaceStats {
	var list []cachesidecar.NamespaceStats
	for name, ns := range n.All() {
		st := n.store.NamespaceStats(ns.ID)
		t := cachesidecar.NamespaceStats{Name: name, Entries: st.Entries, Bytes: st.Bytes, Quota: st.Quota}
		for _, op := range []wire.Op{wire.OpGet, wire.OpMGet, wire.OpLease, wire.OpMetaGet} {
			for o := HitL1; o <= HitNear; o++ {
				t.Hits += ns.Counts[op][o].Load()
			}
			t.SharedHits += ns.Counts[op][HitShared].Load()
			t.NearHits += ns.Counts[op][HitNear].Load()
			t.Loaded += ns.Counts[op][Loaded].Load()
			t.ReadErrors += ns.Counts[op][Failed].Load()
			t.Misses += ns.Counts[op][Miss].Load() + ns.Counts[op][MissShared].Load()
			t.Stale += ns.Counts[op][Stale].Load()
		}
		for _, op := range []wire.Op{wire.OpSet, wire.OpIncr, wire.OpFill} {
			t.Writes += ns.Counts[op][Done].Load()
		}
		t.Deletes = ns.Counts[wire.OpDelete][Done].Load() + ns.Counts[wire.OpDelete][Miss].Load()
		for op := range ns.Counts {
			t.Refused += ns.Counts[op][Refused].Load()
			t.Errors += ns.Counts[op][Failed].Load()
		}
		t.Loads, t.KeyFilter = ns.LoadStats(), ns.KeyFilterStats()
		t.Through, t.Warm, t.Failures = ns.WriteThroughStats(), ns.WarmStats(), ns.failures()
		t.Audit = ns.AuditStats()
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// Served counts the keys that were read and written in the present namespaces.
func (n *Table) Served() (reads, writes int64) {
	for _, t := range n.Stats() {
		reads += t.Reads()
		writes += t.Writes
	}
	return reads, writes
}
