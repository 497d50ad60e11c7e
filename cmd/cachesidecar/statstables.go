package main

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/table"
)

// namespacesTable has a line for each namespace.
func namespacesTable(st *cachesidecar.Stats) table.Rows {
	t := table.Rows{{"NAMESPACE", "ENTRIES", "BYTES", "QUOTA", "READS", "HIT RATIO", "HITS", "IN APPS", "LOADED",
		"MISSES", "STALE", "ERRORS", "WRITES", "DELETES"}}
	for _, ns := range st.Namespaces {
		quota := table.RightAligned("-")
		if ns.Quota > 0 {
			quota = table.Size(ns.Quota)
		}
		t.AddRow(ns.Name, ns.Entries, table.Size(ns.Bytes), quota, ns.Reads(), table.Percent(ns.Hits, ns.Reads()),
			ns.Hits, ns.SharedHits+ns.NearHits, ns.Loaded, ns.Misses, ns.Stale, ns.ReadErrors, ns.Writes, ns.Deletes)
	}
	return t
}

// loadsTables describes the loads of the sidecar and of the apps, and the audits, if there are any.
func loadsTables(st *cachesidecar.Stats) (text string) {
	loads := table.Rows{{"ORIGIN OF", "KIND", "LOADS", "COLLAPSED", "ABSENT", "FAILED", "SHED", "STALE", "MEAN TIME",
		"BREAKER"}}
	audits := table.Rows{{"AUDIT OF", "COMPARED", "DIFFERED", "UP TO 1S", "10S", "1M", "10M", "LONGER", "SETTLED",
		"FAILED", "SKIPPED"}}
	for _, ns := range st.Namespaces {
		if l := &ns.Loads; l.Origin != "" {
			loads.AddRow(ns.Name, l.Origin, l.Loads, l.Collapsed, l.Absent, l.Failed, l.Shed, ns.Stale,
				micros(l.MeanUS), l.Breaker)
		}
		if a := &ns.Audit; a.Configured {
			audits.AddRow(ns.Name, a.Compared(), a.Differed, a.UpTo1s, a.UpTo10s, a.UpTo1m, a.UpTo10m, a.Longer,
				a.Settled, a.Failed, a.Skipped)
		}
	}
	for _, t := range []table.Rows{loads, audits} {
		if len(t) > 1 {
			text += "\n" + t.String()
		}
	}
	if t := &st.LeaseTokens; t.Issued > 0 {
		text += fmt.Sprintf("\nleases: %v tokens for apps to load, %v filled, %v not stored, %v waited instead; "+
			"%v expired, %v given back; %v out\n", table.Count(t.Issued), table.Count(t.Filled),
			table.Count(t.NotStored), table.Count(t.Collapsed), table.Count(t.Expired),
			table.Count(t.Abandoned), table.Count(t.Out))
	}
	return text
}
