package main

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

// clusterText says whether all hosts are well, and has a line for each host, and a line for all.
func clusterText(all *cachesidecar.ClusterStats) string {
	t := table.Rows{{"NODE", "READS", "HIT RATIO", "IN APPS", "LOADED", "MISSES", "ERRORS", "WRITES", "ENTRIES",
		"MEMORY", "PARTITIONS", "L1 COPIES", "L1 HITS", "HANDOFFS", "CAME"}}
	sum := all.Total()
	sum.Node = "total"
	for _, st := range append(slices.Clone(all.Nodes), sum) {
		requests, memory, handoff := st.Total(), &st.L2.Memory, &st.Cluster.Handoff
		t.AddRow(st.Node, requests.Reads(), table.Percent(requests.Hits, requests.Reads()),
			requests.SharedHits+requests.NearHits, requests.Loaded, requests.Misses, requests.Errors, requests.Writes,
			st.L2.Entries, table.Size(memory.Used)+" of "+table.Size(memory.Limit), st.Cluster.Owned,
			st.L1.Entries, st.L1.Hits-st.L1.Refused, handoffs(handoff), handoff.Admitted+handoff.Fetched)
	}
	return clusterHealth(all) + "\n\n" + t.String()
}

// clusterHealth says whether all hosts are well, or what is wrong with them.
func clusterHealth(all *cachesidecar.ClusterStats) string {
	var wrong telemetry.Findings
	for _, m := range all.Missing {
		wrong.Addf("%s: no answer: %s", m.Node, m.Why)
	}
	wrong = slices.Concat(wrong, telemetry.HostFindings(all.Nodes), telemetry.Ownerless(all))
	if len(wrong) == 0 {
		return fmt.Sprintf("health  %s: %d of %d hosts", telemetry.Serving, len(all.Nodes), len(all.Nodes))
	}
	return "health  not well: " + wrong.FirstPlain(2*findingsShown, "\n        ")
}
