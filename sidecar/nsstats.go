package sidecar

import (
	"sort"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func (ns *namespace) loadStats() wire.LoadStats {
	if ns.origin == nil {
		return wire.LoadStats{}
	}
	l, g := ns.loads.Stats(), ns.origin.guard.Stats()
	return wire.LoadStats{
		Origin: ns.origin.name, UnderWay: int64(l.UnderWay), Waiting: int64(l.Waiting),
		Loads: int64(l.Begun), Collapsed: int64(l.Collapsed), Absent: int64(l.Absent), Failed: int64(l.Failed),
		Detached: int64(l.Detached), Aside: ns.aside.Load(),
		Shed:  int64(l.Shed + g.ShedQueue + g.ShedRate + g.ShedBreaker),
		Calls: int64(g.Calls), Retries: int64(g.Retries), Breaker: g.Breaker, MeanUS: ns.took.mean().Microseconds(),
	}
}

// stats tells of every namespace, by name.
func (n *namespaces) stats() []wire.NamespaceStats {
	var list []wire.NamespaceStats
	for name, ns := range n.all() {
		st := n.store.NamespaceStats(ns.id)
		t := wire.NamespaceStats{Name: name, Entries: st.Entries, Bytes: st.Bytes, Quota: st.Quota}
		for _, op := range []wire.Op{wire.OpGet, wire.OpMGet, wire.OpLease} {
			for o := hitL1; o <= hitOrigin; o++ {
				t.Hits += ns.counts[op][o].Load()
			}
			t.Misses += ns.counts[op][miss].Load()
			t.Stale += ns.counts[op][stale].Load()
		}
		for _, op := range []wire.Op{wire.OpSet, wire.OpIncr, wire.OpFill} {
			t.Writes += ns.counts[op][done].Load()
		}
		t.Deletes = ns.counts[wire.OpDelete][done].Load() + ns.counts[wire.OpDelete][miss].Load()
		for op := range ns.counts {
			t.Refused += ns.counts[op][refused].Load()
			t.Errors += ns.counts[op][failed].Load()
		}
		t.Loads, t.Known, t.Through, t.Warm = ns.loadStats(), ns.knownStats(), ns.throughStats(), ns.warmStats()
		list = append(list, t)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name < list[j].Name })
	return list
}

// served counts keys that were read and written in the namespaces there are.
func (n *namespaces) served() (reads, writes int64) {
	for _, t := range n.stats() {
		reads += t.Hits + t.Misses
		writes += t.Writes
	}
	return reads, writes
}
