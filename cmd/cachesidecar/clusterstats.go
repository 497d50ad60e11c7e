package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/cachesidecar/cachesidecar"
)

// partitions is the number of partitions of the ring.
const partitions = 16384

// writeOthers writes the lines of a host's page that concern other hosts.
func writeOthers(w io.Writer, st *cachesidecar.Stats) {
	fmt.Fprintf(w, "l1\t%s copies of others' entries, %s of %s\n", count(st.L1.Entries), size(st.L1.Used), size(st.L1.Limit))
	fmt.Fprintf(w, "\t%s reads found one, of which %s were outdated\n", count(st.L1.Hits), count(st.L1.Refused))
	c := &st.Cluster
	state := "in"
	if !c.In {
		state = "out"
	}
	fmt.Fprintf(w, "cluster\t%s hosts live, this one is %s and owns %s of %s partitions\n", count(int64(c.Members)), state, count(int64(c.Owned)), count(partitions))
	fmt.Fprintf(w, "\tasked others for %s keys (%s reads shared an answer, %s requests failed), served %s keys to others\n",
		count(c.PeerReads), count(c.Joined), count(c.PeerErrors), count(c.Served))
	i := &c.Invalidations
	fmt.Fprintf(w, "\tinvalidations: %s here, %s applied from others (the last waited %s), %s resets; oldest lease %s\n",
		count(i.Head), count(i.Applied), time.Duration(i.LagUS)*time.Microsecond, count(i.Gaps+i.Resets), oldest(i.Leases))
	h := &c.Handoff
	fmt.Fprintf(w, "\thandoffs under way: %s; entries handed over: %s came, %s went\n", handoffs(h.Pulling, int64(h.Offering)), count(h.Admitted+h.Fetched), count(h.Given))
	if c.Pauses+c.PollFailures+c.Refused+c.Conflicts > 0 {
		fmt.Fprintf(w, "\ttrouble: %s pauses, %s of %s polls failed, %s greetings refused, %s conflicts of names\n",
			count(c.Pauses), count(c.PollFailures), count(c.Polls), count(c.Refused), count(c.Conflicts))
	}
}

// oldest returns the age of the oldest lease on another host. Copies of that host's
// entries may lag that far behind.
func oldest(leases []cachesidecar.LeaseStats) string {
	age := int64(-1)
	for _, l := range leases {
		if l.AgeMS < 0 {
			return fmt.Sprintf("none on %s", l.Node)
		}
		age = max(age, l.AgeMS)
	}
	if age < 0 {
		return "none"
	}
	return (time.Duration(age) * time.Millisecond).String()
}

// handoffs formats the numbers of handoffs under way.
func handoffs(in, out int64) string {
	if in+out == 0 {
		return "none"
	}
	return fmt.Sprintf("%s in, %s out", count(in), count(out))
}

// writeCluster writes a line for each host, a line for all hosts, and the hosts that did
// not answer.
func writeCluster(out io.Writer, all *cachesidecar.ClusterStats) error {
	err := table(out, tabwriter.AlignRight, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tREADS\tHIT RATIO\tWRITES\tENTRIES\tMEMORY\tPARTITIONS\tL1 COPIES\tL1 HITS\tHANDOFFS\tCAME\t")
		sum, done := cachesidecar.Stats{Node: "total"}, work{}
		for i := range all.Nodes {
			st := &all.Nodes[i]
			t := totals(*st)
			writeHost(w, st, t)
			done.hits += t.hits
			done.misses += t.misses
			done.writes += t.writes
			add(&sum, st)
		}
		writeHost(w, &sum, done)
	})
	for _, m := range all.Missing {
		if err == nil {
			_, err = fmt.Fprintf(out, "%s: no answer: %s\n", m.Node, m.Why)
		}
	}
	return err
}

func writeHost(w io.Writer, st *cachesidecar.Stats, t work) {
	h := &st.Cluster.Handoff
	fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s of %s\t%s\t%s\t%s\t%s\t%s\t\n", st.Node, count(t.reads()), percent(t.hits, t.reads()), count(t.writes),
		count(st.L2.Entries), size(st.L2.Memory.Used), size(st.L2.Memory.Limit), count(int64(st.Cluster.Owned)),
		count(st.L1.Entries), count(st.L1.Hits-st.L1.Refused), handoffs(h.Pulling, int64(h.Offering)), count(h.Admitted+h.Fetched))
}

// add adds to sum the values that writeHost shows.
func add(sum, st *cachesidecar.Stats) {
	sum.L2.Entries += st.L2.Entries
	sum.L2.Memory.Used += st.L2.Memory.Used
	sum.L2.Memory.Limit += st.L2.Memory.Limit
	sum.Cluster.Owned += st.Cluster.Owned
	sum.L1.Entries += st.L1.Entries
	sum.L1.Hits += st.L1.Hits
	sum.L1.Refused += st.L1.Refused
	h, o := &sum.Cluster.Handoff, &st.Cluster.Handoff
	h.Pulling += o.Pulling
	h.Offering += o.Offering
	h.Admitted += o.Admitted
	h.Fetched += o.Fetched
}
