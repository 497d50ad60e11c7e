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

// statsPage writes the lines of a host's page: a title and a text.
type statsPage struct{ io.Writer }

// line writes a line. Integers are formatted as counts, so that the format takes them
// with %s.
func (p statsPage) line(title, format string, args ...any) {
	for i, a := range args {
		switch n := a.(type) {
		case int64:
			args[i] = count(n)
		case int:
			args[i] = count(int64(n))
		}
	}
	fmt.Fprintf(p, "%s\t"+format+"\n", append([]any{title}, args...)...)
}

// writeStats writes the readable page. With an earlier reading it adds rates.
func writeStats(out io.Writer, st cachesidecar.Stats, last *cachesidecar.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	p := statsPage{w}
	up := (time.Duration(st.UptimeMS) * time.Millisecond).Round(time.Second)
	p.line(st.Node, "cachesidecar %s, up %v", st.Server, up)
	p.health(&st)
	p.requests(&st, last)
	p.socket(&st.Connections)
	p.l2(&st.L2)
	if m := &st.Memory; m.Limit > 0 {
		p.line("shared", "%s of memory that apps read: %s reads, %s values put there, %s withdrawn",
			size(m.Limit), m.Hits, m.Published, m.Withdrawn)
	}
	if st.L1.Limit > 0 { // other hosts may join
		p.others(&st)
	}
	for i := range st.Changes {
		p.feed(&st.Changes[i])
	}
	pr := &st.Process
	p.line("process", "pid %s, resident %s, Go heap %s, %s goroutines",
		fmt.Sprint(pr.PID), size(pr.ResidentBytes), size(pr.HeapBytes), pr.Goroutines)
	p.line("", "garbage collection %.2f %% of CPU, longest pause %v\n",
		100*pr.GCCPUShare, time.Duration(pr.GCPauseMaxUS)*time.Microsecond)
	if err := w.Flush(); err != nil {
		return err
	}
	if err := writeNamespaces(out, &st); err != nil {
		return err
	}
	return writeLoads(out, &st)
}

func (p statsPage) requests(st, last *cachesidecar.Stats) {
	t := st.Total()
	reads := t.Reads()
	p.line("reads", "%s: %s hits, %s loaded, %s missing, %s stale, %s errors", reads,
		percent(t.Hits, reads), t.Loaded, t.Misses, t.Stale, t.ReadErrors)
	if t.SharedHits+t.NearHits > 0 {
		p.line("", "of the hits %s in shared memory and %s in near caches, as apps report", t.SharedHits, t.NearHits)
	}
	p.line("writes", "%s, deletes %s, errors %s", t.Writes, t.Deletes, t.Errors-t.ReadErrors)
	if last == nil || st.UptimeMS <= last.UptimeMS {
		return
	}
	l, s := last.Total(), float64(st.UptimeMS-last.UptimeMS)/1000
	rate := func(now, then int64) int64 { return int64(float64(now-then) / s) }
	p.line("rates", "%s reads/s, %s writes/s, %s in/s, %s out/s",
		rate(reads, l.Reads()), rate(t.Writes, l.Writes),
		size(rate(st.Connections.BytesIn, last.Connections.BytesIn)),
		size(rate(st.Connections.BytesOut, last.Connections.BytesOut)))
}

func (p statsPage) socket(c *cachesidecar.ConnectionStats) {
	p.line("socket", "%s of %s connections, %s requests wait", c.Open, c.Limit, c.InFlight)
}

func (p statsPage) l2(l *cachesidecar.L2Stats) {
	m := &l.Memory
	p.line("l2", "%s entries, %s of %s", l.Entries, size(m.Used), size(m.Limit))
	p.line("", "keys and values %s, headers %s, index %s, ghosts %s, dead %s, unfilled %s", size(m.Payload),
		size(m.Headers+m.Alignment), size(m.Index), size(m.Ghosts), size(m.Dead), size(m.Open+m.Tails))
	p.line("", "gone: %s evicted, %s expired, %s flushed, %s moved away, %s over quota",
		l.Evicted, l.Expired, l.Flushed, l.Moved, l.QuotaEvicted)
}

// others writes the lines that concern other hosts.
func (p statsPage) others(st *cachesidecar.Stats) {
	p.line("l1", "%s copies of others' entries, %s of %s", st.L1.Entries, size(st.L1.Used), size(st.L1.Limit))
	p.line("", "%s reads found one, of which %s were outdated", st.L1.Hits, st.L1.Refused)
	c := &st.Cluster
	state := "in"
	if !c.In {
		state = "out"
	}
	p.line("cluster", "%s hosts live, this one is %s and owns %s of %s partitions",
		c.Members, state, c.Owned, partitions)
	p.line("", "asked others for %s keys (%s reads shared an answer), served %s keys to others",
		c.PeerReads, c.Joined, c.Served)
	i := &c.Invalidations
	p.line("", "invalidations: %s here, %s applied from others (the last waited %s), %s resets; oldest lease %s",
		i.Head, i.Applied, time.Duration(i.LagUS)*time.Microsecond, i.Gaps+i.Resets, oldest(i.Leases))
	h := &c.Handoff
	p.line("", "handoffs under way: %s; entries handed over: %s came, %s went",
		handoffs(h), h.Admitted+h.Fetched, h.Given)
}

// feed writes the line of a feed of changes.
func (p statsPage) feed(f *cachesidecar.ChangesStats) {
	if !f.Following {
		p.line("changes", "feed %s: %s", f.Name, f.State)
		return
	}
	p.line("changes", "feed %s: following, %v behind, %s rows, %s keys deleted, %s flushes; the server keeps %s",
		f.Name, time.Duration(f.LagMS)*time.Millisecond, f.Rows, f.Deletions, f.Flushes, size(f.KeptBytes))
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
func handoffs(h *cachesidecar.HandoffStats) string {
	in, out := h.Pulling, int64(h.Offering)
	if in+out == 0 {
		return "none"
	}
	return fmt.Sprintf("%s in, %s out", count(in), count(out))
}

// writeNamespaces writes a line for each namespace.
func writeNamespaces(out io.Writer, st *cachesidecar.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "NAMESPACE\tENTRIES\tBYTES\tQUOTA\tREADS\tHIT RATIO\tHITS\tIN APPS\tLOADED\tMISSES\tSTALE\t"+
		"ERRORS\tWRITES\tDELETES\t")
	for _, ns := range st.Namespaces {
		quota := "-"
		if ns.Quota > 0 {
			quota = size(ns.Quota)
		}
		statsPage{w}.line(ns.Name, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t",
			ns.Entries, size(ns.Bytes), quota, ns.Reads(), percent(ns.Hits, ns.Reads()),
			ns.Hits, ns.SharedHits+ns.NearHits, ns.Loaded, ns.Misses, ns.Stale, ns.ReadErrors, ns.Writes, ns.Deletes)
	}
	return w.Flush()
}

// writeLoads writes the loads of the sidecar and of the apps, and the audits, if there are any.
func writeLoads(out io.Writer, st *cachesidecar.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	p := statsPage{w}
	head := "\nORIGIN OF\tKIND\tLOADS\tCOLLAPSED\tABSENT\tFAILED\tSHED\tSTALE\tMEAN TIME\tBREAKER\t\n"
	for _, ns := range st.Namespaces {
		l := &ns.Loads
		if l.Origin == "" {
			continue
		}
		fmt.Fprint(w, head)
		head = ""
		p.line(ns.Name, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\t%s\t", l.Origin, l.Loads, l.Collapsed,
			l.Absent, l.Failed, l.Shed, ns.Stale, time.Duration(l.MeanUS)*time.Microsecond, l.Breaker)
	}
	head = "\nAUDIT OF\tCOMPARED\tDIFFERED\tUP TO 1S\t10S\t1M\t10M\tLONGER\tSETTLED\tFAILED\tSKIPPED\t\n"
	for _, ns := range st.Namespaces {
		a := &ns.Audit
		if !a.Configured {
			continue
		}
		fmt.Fprint(w, head)
		head = ""
		p.line(ns.Name, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t", a.Compared(), a.Differed,
			a.UpTo1s, a.UpTo10s, a.UpTo1m, a.UpTo10m, a.Longer, a.Settled, a.Failed, a.Skipped)
	}
	if t := &st.Leases; t.Issued > 0 {
		fmt.Fprintf(w, "\nleases: %s tokens for apps to load, %s filled, %s not stored, %s waited instead; "+
			"%s expired, %s given back; %s out\n", count(t.Issued), count(t.Filled), count(t.NotStored),
			count(t.Collapsed), count(t.Expired), count(t.Abandoned), count(t.Out))
	}
	return w.Flush()
}
