package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

func statsCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "show what the sidecar on this host does, or all of them",
		Flags: clientFlags(jsonFlag,
			boolFlag("cluster", "show every host of the cluster"),
			boolFlag("watch", "show it anew every second, with rates", "w"),
		),
		Action: withArgs(0, 0, func(c *cli.Context) error {
			if c.Bool("watch") {
				return p.watchStats(c)
			}
			r, err := readStats(c, nil)
			if err != nil {
				return err
			}
			return p.show(c, r.document, r.text)
		}),
	}
}

// reading is the statistics of one host or of all at one time.
type reading struct {
	document any
	text     string              // for people
	host     *cachesidecar.Stats // nil: of all hosts
}

// readStats reads the statistics. The text of a host has rates if there is an earlier reading.
func readStats(c *cli.Context, last *cachesidecar.Stats) (r reading, err error) {
	err = withClient(c, func(ctx context.Context, cl *client.Client) error {
		if c.Bool("cluster") {
			all, err := cl.ClusterStats(ctx)
			r = reading{document: all, text: clusterText(&all)}
			return err
		}
		st, err := cl.Stats(ctx)
		r = reading{st, statsText(&st, last), &st}
		return err
	})
	return r, err
}

// watchStats shows the page until it is interrupted. It connects anew each time, so that
// it survives a restart of the sidecar.
func (p *program) watchStats(c *cli.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last *cachesidecar.Stats
	for begun := false; ; {
		r, err := readStats(c, last)
		switch {
		case c.Context.Err() != nil:
			return nil
		case err != nil && !begun:
			return err
		case err != nil:
			fmt.Fprintln(p.err, "cachesidecar:", logs.Lines(err.Error()))
		default:
			clear := ""
			if isTerminal(p.out) {
				clear = "\x1b[H\x1b[2J"
			}
			if err := p.show(c, r.document, clear+r.text+"\n"); err != nil {
				return err
			}
			last, begun = r.host, true
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}

// clusterText says whether all hosts are well, and has a line for each host, and a line for all.
func clusterText(all *cachesidecar.ClusterStats) string {
	t := table.Rows{{"NODE", "READS", "HIT RATIO", "IN APPS", "LOADED", "MISSES", "ERRORS", "WRITES", "ENTRIES",
		"MEMORY", "PARTITIONS", "L1 COPIES", "L1 HITS", "HANDOFFS", "CAME"}}
	sum := all.Total()
	sum.Node = "total"
	for _, st := range append(slices.Clone(all.Nodes), sum) {
		n, m, h := st.Total(), &st.L2.Memory, &st.Cluster.Handoff
		t.AddRow(st.Node, n.Reads(), table.Percent(n.Hits, n.Reads()), n.SharedHits+n.NearHits, n.Loaded, n.Misses,
			n.Errors, n.Writes, st.L2.Entries, table.Size(m.Used)+" of "+table.Size(m.Limit), st.Cluster.Owned,
			st.L1.Entries,
			st.L1.Hits-st.L1.Refused, handoffs(h), h.Admitted+h.Fetched)
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

// statsPage has the lines of a host's page: a title and a text.
type statsPage struct{ table.Rows }

// line adds a line, in which whole numbers have commas.
func (page *statsPage) line(title, format string, args ...any) {
	for i, a := range args {
		args[i] = table.WithCommas(a)
	}
	page.AddRow(title, fmt.Sprintf(format, args...))
}

// statsText is the readable page. With an earlier reading it has rates.
func statsText(st, last *cachesidecar.Stats) string {
	var p statsPage
	p.line(st.Node, "cachesidecar %v, up %v", st.Server, millis(st.UptimeMS).Round(time.Second))
	p.health(st)
	p.requests(st, last)
	s := &st.Connections
	p.line("socket", "%v of %v connections, %v requests wait", s.Open, s.Limit, s.InFlight)
	p.l2(&st.L2)
	if m := &st.Memory; m.Limit > 0 {
		p.line("shared", "%v of memory that apps read: %v reads, %v values put there, %v withdrawn",
			table.Size(m.Limit), m.Hits, m.Published, m.Withdrawn)
	}
	if st.L1.Limit > 0 { // other hosts may join
		p.others(st)
	}
	for i := range st.Changes {
		p.feed(&st.Changes[i])
	}
	pr := &st.Process
	p.line("process", "pid %v, resident %v, Go heap %v, %v goroutines",
		fmt.Sprint(pr.PID), table.Size(pr.ResidentBytes), table.Size(pr.HeapBytes), pr.Goroutines)
	p.line("", "garbage collection %.2f %% of CPU, longest pause %v", 100*pr.GCCPUShare, micros(pr.GCPauseMaxUS))
	return p.String() + "\n" + namespacesTable(st).String() + loadsTables(st)
}

func (page *statsPage) requests(st, last *cachesidecar.Stats) {
	t := st.Total()
	reads := t.Reads()
	page.line("reads", "%v: %v hits, %v loaded, %v missing, %v stale, %v errors", reads,
		table.Percent(t.Hits, reads), t.Loaded, t.Misses, t.Stale, t.ReadErrors)
	if t.SharedHits+t.NearHits > 0 {
		page.line("", "of the hits %v in shared memory and %v in near caches, as apps report", t.SharedHits, t.NearHits)
	}
	page.line("writes", "%v, deletes %v, errors %v", t.Writes, t.Deletes, t.Errors-t.ReadErrors)
	if last == nil || st.UptimeMS <= last.UptimeMS {
		return
	}
	l, s := last.Total(), float64(st.UptimeMS-last.UptimeMS)/1000
	rate := func(now, then int64) int64 { return int64(float64(now-then) / s) }
	page.line("rates", "%v reads/s, %v writes/s, %v in/s, %v out/s",
		rate(reads, l.Reads()), rate(t.Writes, l.Writes),
		table.Size(rate(st.Connections.BytesIn, last.Connections.BytesIn)),
		table.Size(rate(st.Connections.BytesOut, last.Connections.BytesOut)))
}

func (page *statsPage) l2(l *cachesidecar.L2Stats) {
	m := &l.Memory
	page.line("l2", "%v entries, %v of %v", l.Entries, table.Size(m.Used), table.Size(m.Limit))
	page.line("", "keys and values %v, headers %v, index %v, ghosts %v, dead %v, unfilled %v", table.Size(m.Payload),
		table.Size(m.Headers+m.Alignment), table.Size(m.Index), table.Size(m.Ghosts), table.Size(m.Dead),
		table.Size(m.Open+m.Tails))
	page.line("", "gone: %v evicted, %v expired, %v flushed, %v moved away, %v over quota",
		l.Evicted, l.Expired, l.Flushed, l.Moved, l.QuotaEvicted)
	switch k := l.Kept; {
	case k == nil:
	case k.Cold != "":
		page.line("", "kept none from before: %v", k.Cold)
	default:
		again := ""
		if k.Partitions > 0 {
			again = fmt.Sprintf(", %d of %d partitions served again, %d waiting, %d changed meanwhile",
				k.Again, k.Partitions, k.Waiting, k.Changed)
		}
		page.line("", "kept: %v entries, down for %v%s", k.Entries, millis(k.DownMS), again)
	}
}

// others writes the lines that concern other hosts.
func (page *statsPage) others(st *cachesidecar.Stats) {
	page.line("l1", "%v copies of others' entries, %v of %v", st.L1.Entries, table.Size(st.L1.Used),
		table.Size(st.L1.Limit))
	page.line("", "%v reads found one, of which %v were outdated", st.L1.Hits, st.L1.Refused)
	c := &st.Cluster
	state := "in"
	if !c.In {
		state = "out"
	}
	page.line("cluster", "%v hosts live, this one is %v and owns %v of %v partitions",
		c.Members, state, c.Owned, kv.Partitions)
	page.line("", "asked others for %v keys (%v reads shared an answer), served %v keys to others",
		c.PeerReads, c.Joined, c.Served)
	i := &c.Invalidations
	page.line("", "invalidations: %v here, %v applied from others (the last waited %v), %v resets; oldest lease %v",
		i.Head, i.Applied, micros(i.LagUS), i.Gaps+i.Resets, oldest(i.Leases))
	h := &c.Handoff
	page.line("", "handoffs under way: %v; entries handed over: %v came, %v went",
		handoffs(h), h.Admitted+h.Fetched, h.Sent)
}

// feed writes the line of a feed of changes.
func (page *statsPage) feed(f *cachesidecar.ChangesStats) {
	certified := ""
	if f.MaxLagMS > 0 {
		certified = fmt.Sprintf(", certified %v ago", millis(f.CertifiedMS))
	}
	if !f.Following {
		page.line("changes", "feed %v: %v%v", f.Name, f.State, certified)
		return
	}
	page.line("changes", "feed %v: following, %v behind%v, %v rows, %v keys deleted, %v flushes; the server keeps %v",
		f.Name, millis(f.LagMS), certified, f.Rows, f.Deletions, f.Flushes, table.Size(f.KeptBytes))
}

// oldest returns the age of the oldest lease on another host. Copies of that host's
// entries may lag that far behind.
func oldest(leases []cachesidecar.LeaseStats) string {
	age := int64(-1)
	for _, l := range leases {
		if l.AgeMS < 0 {
			return fmt.Sprintf("none on %v", l.Node)
		}
		age = max(age, l.AgeMS)
	}
	if age < 0 {
		return "none"
	}
	return millis(age).String()
}

// handoffs formats the numbers of handoffs under way.
func handoffs(h *cachesidecar.HandoffStats) table.RightAligned {
	in, out := h.Pulling, int64(h.OpenOffers)
	if in+out == 0 {
		return "none"
	}
	return table.Count(in) + " in, " + table.Count(out) + " out"
}

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

// hurts returns what has gone wrong since the start, and what the limits cost.
func hurts(st *cachesidecar.Stats) (f telemetry.Findings) {
	for i := range st.Namespaces {
		ns := &st.Namespaces[i]
		for j := range ns.Failures {
			if x := &ns.Failures[j]; x.Error != "" && !telemetry.OriginFails(ns, x) {
				f = append(f, telemetry.OriginFailure(ns, x))
			}
		}
		f.Counts("origin of "+ns.Name, ns.Loads.Shed, "loads refused to protect it",
			ns.Through.Unknown, "writes of unknown outcome", ns.KeyFilter.Failures, "failed builds of the key filter")
		if ns.Recent.Evicted == 0 { // else its health says so
			f.Counts("namespace "+ns.Name+" was full", ns.QuotaEvicted, "entries evicted over its quota")
		}
	}
	n, l, c := &st.Connections, &st.L2, &st.Cluster
	f.Counts("connections cut off", n.Rejected, "over the limit", n.SlowReaders, "took no answers",
		n.SlowFrames, "sent too slowly", n.BadFrames, "sent bad frames", n.OverBudget, "used too much memory")
	f.Counts("connections that wait for their turn to begin", n.Waiting, "(their users open many at once)")
	f.Counts("lack of memory", n.Dropped, "requests BUSY unread", n.Buffers.Refused, "times none for a connection")
	for _, s := range st.Shares {
		f.Counts("requests refused because their client had too many "+s.Name, s.Refused, "")
	}
	denied := int64(0)
	for _, n := range n.Denied {
		denied += n
	}
	f.Counts("requests without the right", denied, "")
	f.Counts("writes refused because their callers had given up", st.Overdue, "")
	f.Counts("times that the socket's file was gone and was made again", n.Remade, "")
	f.Counts("writes refused for lack of room", l.NoRoom, "")
	f.Counts("chosen hashes", l.Collided, "evicted for a key of the same hash", l.CrowdedOut, "in full pages",
		l.SplitsRefused, "splits refused")
	f.Counts("pauses of the process, after which it owned nothing", c.Pauses, "")
	f.Counts("other hosts", c.PollFailures, "polls failed", c.PeerErrors, "requests to owners failed",
		c.Handoff.Failed, "handoffs ended early", c.Refused, "greetings refused", c.Conflicts, "conflicts of names")
	f.Counts("lines of the log", st.Log.LeftOut, "left out because of their number", st.Log.Lost, "lost")
	f.Counts("connections to the HTTP port closed because of their number", st.HTTP.Closed, "")
	return f
}

// findingsShown is the most findings of one kind on a page.
const findingsShown = 12

// health writes the first lines of a host's page: whether it is well, and what hurts.
func (page *statsPage) health(st *cachesidecar.Stats) {
	text, why := telemetry.ConditionOf(st)
	if len(why) > 0 {
		text += ": "
	}
	page.list("health", text+why.FirstPlain(findingsShown, "\n"))
	if f := hurts(st); len(f) > 0 {
		page.list("hurts", f.FirstPlain(findingsShown, "\n"))
	}
	page.AddRow()
}

// list adds the lines of a text, the first of which has a title.
func (page *statsPage) list(title, text string) {
	for line := range strings.SplitSeq(text, "\n") {
		page.AddRow(title, line)
		title = ""
	}
}
