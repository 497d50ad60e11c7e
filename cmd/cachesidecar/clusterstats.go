package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/cachesidecar/cachesidecar"
)

// writeCluster writes a line for each host, a line for all hosts, and the hosts that did
// not answer.
func writeCluster(out io.Writer, all *cachesidecar.ClusterStats) error {
	err := table(out, tabwriter.AlignRight, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tREADS\tHIT RATIO\tWRITES\tENTRIES\tMEMORY\tPARTITIONS\tL1 COPIES\tL1 HITS\t"+
			"HANDOFFS\tCAME\t")
		for i := range all.Nodes {
			writeHost(w, &all.Nodes[i])
		}
		sum := all.Total()
		sum.Node = "total"
		writeHost(w, &sum)
	})
	for _, m := range all.Missing {
		if err == nil {
			_, err = fmt.Fprintf(out, "%s: no answer: %s\n", m.Node, m.Why)
		}
	}
	return err
}

func writeHost(w io.Writer, st *cachesidecar.Stats) {
	t, m, h := st.Total(), &st.L2.Memory, &st.Cluster.Handoff
	reads := t.Hits + t.Misses
	statsPage{w}.line(st.Node, "%s\t%s\t%s\t%s\t%s of %s\t%s\t%s\t%s\t%s\t%s\t",
		reads, percent(t.Hits, reads), t.Writes, st.L2.Entries, size(m.Used), size(m.Limit), st.Cluster.Owned,
		st.L1.Entries, st.L1.Hits-st.L1.Refused, handoffs(h), h.Admitted+h.Fetched)
}
