package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/cachesidecar/cachesidecar"
)

// writeCluster writes whether all hosts are well, a line for each host, and a line for all.
func writeCluster(out io.Writer, all *cachesidecar.ClusterStats) error {
	if _, err := fmt.Fprintf(out, "%s\n\n", clusterHealth(all)); err != nil {
		return err
	}
	return table(out, tabwriter.AlignRight, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tREADS\tHIT RATIO\tIN APPS\tLOADED\tMISSES\tERRORS\tWRITES\tENTRIES\tMEMORY\t"+
			"PARTITIONS\tL1 COPIES\tL1 HITS\tHANDOFFS\tCAME\t")
		for i := range all.Nodes {
			writeHost(w, &all.Nodes[i])
		}
		sum := all.Total()
		sum.Node = "total"
		writeHost(w, &sum)
	})
}

// clusterHealth says whether all hosts are well, or what is wrong with them.
func clusterHealth(all *cachesidecar.ClusterStats) string {
	var wrong findings
	for _, m := range all.Missing {
		wrong.addf("%s: no answer: %s", m.Node, m.Why)
	}
	for i := range all.Nodes {
		for _, w := range wrongNow(&all.Nodes[i]) {
			wrong.addf("%s: %s", all.Nodes[i].Node, w)
		}
	}
	sum := all.Total()
	if n := partitions - sum.Cluster.Owned; n > 0 && len(all.Missing) == 0 {
		wrong.addf("%s of %s partitions have no owner", count(int64(n)), count(partitions))
	}
	if len(wrong) == 0 {
		return fmt.Sprintf("health  well: %d of %d hosts", len(all.Nodes), len(all.Nodes))
	}
	return "health  not well: " + atMost(wrong, 2*findingsShown, "\n        ")
}

func writeHost(w io.Writer, st *cachesidecar.Stats) {
	t, m, h := st.Total(), &st.L2.Memory, &st.Cluster.Handoff
	reads := t.Reads()
	statsPage{w}.line(st.Node, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s of %s\t%s\t%s\t%s\t%s\t%s\t",
		reads, percent(t.Hits, reads), t.SharedHits+t.NearHits, t.Loaded, t.Misses, t.Errors, t.Writes, st.L2.Entries,
		size(m.Used), size(m.Limit), st.Cluster.Owned, st.L1.Entries, st.L1.Hits-st.L1.Refused,
		handoffs(h), h.Admitted+h.Fetched)
}
