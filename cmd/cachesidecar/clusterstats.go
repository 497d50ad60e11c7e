package main

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/condition"
)

// clusterText says whether all hosts are well, and has a line for each host, and a line for all.
func clusterText(all *cachesidecar.ClusterStats) string {
	t := table{{"NODE", "READS", "HIT RATIO", "IN APPS", "LOADED", "MISSES", "ERRORS", "WRITES", "ENTRIES", "MEMORY",
		"PARTITIONS", "L1 COPIES", "L1 HITS", "HANDOFFS", "CAME"}}
	sum := all.Total()
	sum.Node = "total"
	for _, st := range append(slices.Clone(all.Nodes), sum) {
		n, m, h := st.Total(), &st.L2.Memory, &st.Cluster.Handoff
		t.row(st.Node, n.Reads(), percent(n.Hits, n.Reads()), n.SharedHits+n.NearHits, n.Loaded, n.Misses, n.Errors,
			n.Writes, st.L2.Entries, size(m.Used)+" of "+size(m.Limit), st.Cluster.Owned, st.L1.Entries,
			st.L1.Hits-st.L1.Refused, handoffs(h), h.Admitted+h.Fetched)
	}
	return clusterHealth(all) + "\n\n" + t.String()
}

// clusterHealth says whether all hosts are well, or what is wrong with them.
func clusterHealth(all *cachesidecar.ClusterStats) string {
	wrong := append(hostsWrong(all), ownerless(all)...)
	if len(wrong) == 0 {
		return fmt.Sprintf("health  %s: %d of %d hosts", condition.Serving, len(all.Nodes), len(all.Nodes))
	}
	return "health  not well: " + condition.AtMost(wrong, 2*findingsShown, "\n        ")
}

// hostsWrong returns what is wrong with hosts, each time with the name of the host.
func hostsWrong(all *cachesidecar.ClusterStats) (wrong condition.Findings) {
	for _, m := range all.Missing {
		wrong.Addf("%s: no answer: %s", m.Node, m.Why)
	}
	for i := range all.Nodes {
		st := &all.Nodes[i]
		word, why := condition.Of(st)
		for j, w := range why {
			if j == 0 && word == condition.NotReady {
				w = word + ": " + w
			}
			wrong.Addf("%s: %s", st.Node, w)
		}
	}
	return wrong
}

// ownerless says that partitions have no owner, if all hosts have answered.
func ownerless(all *cachesidecar.ClusterStats) (wrong condition.Findings) {
	sum := all.Total()
	if n := partitions - sum.Cluster.Owned; n > 0 && len(all.Missing) == 0 {
		wrong.Addf("%s of %s partitions have no owner", count(int64(n)), count(partitions))
	}
	return wrong
}
