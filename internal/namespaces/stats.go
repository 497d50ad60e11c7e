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
	l, g := ns.Loads.Stats(), ns.calls
	if o := ns.Origin; o != nil {
		l.Origin, l.Breaker = o.Name, o.Breaker()
		l.BreakerOpen, l.BreakerHalfOpen = l.Breaker == "open", l.Breaker == "half-open"
	}
	l.Opened = g.Opened.Load()
	l.Aside, l.MeanUS = ns.WithoutOwner.Load(), ns.Took.Mean().Microseconds()
	l.Loaded = l.Loads - l.Absent - l.Failed - l.UnderWay
	l.Shed += g.Shed.Load()
	l.Calls, l.Retries = g.Calls.Load(), g.Retries.Load()
	return l
}

// WriteThroughStats returns the write-through's part of STATS; zero without one.
func (ns *Namespace) WriteThroughStats() cachesidecar.ThroughStats {
	s := ns.through.stats()
	s.Configured = ns.WriteThrough != nil
	return s
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

// Reads returns the number of keys that apps have read, by outcome.
func (ns *Namespace) Reads() (n [Outcomes]int64) {
	for op := range ns.Counts {
		if !wire.Op(op).Reads() {
			continue
		}
		for o := range n {
			n[o] += ns.Counts[op][o].Load()
		}
	}
	return n
}

// Stats returns the statistics of every namespace, in the order of their names.
func (n *Table) Stats() []cachesidecar.NamespaceStats {
	var list []cachesidecar.NamespaceStats
	for name, ns := range n.All() {
		st := n.Store.NamespaceStats(ns.ID)
		t := cachesidecar.NamespaceStats{Name: name, Entries: st.Entries, Bytes: st.Bytes, Quota: st.Quota,
			Evicted: st.Evicted, QuotaEvicted: st.QuotaEvicted}
		reads := ns.Reads()
		for o := HitL1; o <= HitNear; o++ {
			t.Hits += reads[o]
		}
		t.SharedHits, t.NearHits, t.Loaded = reads[HitShared], reads[HitNear], reads[Loaded]
		t.ReadErrors, t.Misses, t.Stale = reads[Failed], reads[Miss]+reads[MissShared], reads[Stale]
		for _, op := range []wire.Op{wire.OpSet, wire.OpIncr, wire.OpFill} {
			t.Writes += ns.Counts[op][Done].Load()
		}
		t.Deletes = ns.Counts[wire.OpDelete][Done].Load() + ns.Counts[wire.OpDelete][Miss].Load()
		for op := range ns.Counts {
			t.Refused += ns.Counts[op][Refused].Load()
			t.Errors += ns.Counts[op][Failed].Load()
		}
		t.Loads, t.KeyFilter = ns.LoadStats(), ns.KeyFilter.Stats()
		t.Through, t.Warm = ns.WriteThroughStats(), ns.WarmStats()
		t.Audit, t.Failures = ns.AuditStats(), []cachesidecar.FailureStats{}
		if ns.Origin != nil {
			t.Failures = ns.Origin.Failures()
		}
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
