package main

import (
	"context"
	"fmt"
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
	var page statsPage
	page.line(st.Node, "cachesidecar %v, up %v", st.Server, millis(st.UptimeMS).Round(time.Second))
	page.health(st)
	page.requests(st, last)
	socket := &st.Connections
	page.line("socket", "%v of %v connections, %v requests wait", socket.Open, socket.Limit, socket.InFlight)
	page.l2(&st.L2)
	if m := &st.Memory; m.Limit > 0 {
		page.line("shared", "%v of memory that apps read: %v reads, %v values put there, %v withdrawn",
			table.Size(m.Limit), m.Hits, m.Published, m.Withdrawn)
	}
	if st.L1.Limit > 0 { // other hosts may join
		page.others(st)
	}
	for i := range st.Changes {
		page.feed(&st.Changes[i])
	}
	process := &st.Process
	page.line("process", "pid %v, resident %v, Go heap %v, %v goroutines",
		fmt.Sprint(process.PID), table.Size(process.ResidentBytes), table.Size(process.HeapBytes), process.Goroutines)
	page.line("", "garbage collection %.2f %% of CPU, longest pause %v", 100*process.GCCPUShare,
		micros(process.GCPauseMaxUS))
	return page.String() + "\n" + namespacesTable(st).String() + loadsTables(st)
}

func (page *statsPage) requests(st, last *cachesidecar.Stats) {
	total := st.Total()
	reads := total.Reads()
	page.line("reads", "%v: %v hits, %v loaded, %v missing, %v stale, %v errors", reads,
		table.Percent(total.Hits, reads), total.Loaded, total.Misses, total.Stale, total.ReadErrors)
	if total.SharedHits+total.NearHits > 0 {
		page.line("", "of the hits %v in shared memory and %v in near caches, as apps report", total.SharedHits,
			total.NearHits)
	}
	page.line("writes", "%v, deletes %v, errors %v", total.Writes, total.Deletes, total.Errors-total.ReadErrors)
	if last == nil || st.UptimeMS <= last.UptimeMS {
		return
	}
	before, seconds := last.Total(), float64(st.UptimeMS-last.UptimeMS)/1000
	rate := func(now, then int64) int64 { return int64(float64(now-then) / seconds) }
	page.line("rates", "%v reads/s, %v writes/s, %v in/s, %v out/s",
		rate(reads, before.Reads()), rate(total.Writes, before.Writes),
		table.Size(rate(st.Connections.BytesIn, last.Connections.BytesIn)),
		table.Size(rate(st.Connections.BytesOut, last.Connections.BytesOut)))
}

func (page *statsPage) l2(store *cachesidecar.L2Stats) {
	memory := &store.Memory
	page.line("l2", "%v entries, %v of %v", store.Entries, table.Size(memory.Used), table.Size(memory.Limit))
	page.line("", "keys and values %v, headers %v, index %v, ghosts %v, dead %v, unfilled %v",
		table.Size(memory.Payload), table.Size(memory.Headers+memory.Alignment), table.Size(memory.Index),
		table.Size(memory.Ghosts), table.Size(memory.Dead), table.Size(memory.Open+memory.Tails))
	page.line("", "gone: %v evicted, %v expired, %v flushed, %v moved away, %v over quota",
		store.Evicted, store.Expired, store.Flushed, store.Moved, store.QuotaEvicted)
	switch kept := store.Kept; {
	case kept == nil:
	case kept.Cold != "":
		page.line("", "kept none from before: %v", kept.Cold)
	default:
		again := ""
		if kept.Partitions > 0 {
			again = fmt.Sprintf(", %d of %d partitions served again, %d waiting, %d changed meanwhile",
				kept.Again, kept.Partitions, kept.Waiting, kept.Changed)
		}
		page.line("", "kept: %v entries, down for %v%s", kept.Entries, millis(kept.DownMS), again)
	}
}

// others writes the lines that concern other hosts.
func (page *statsPage) others(st *cachesidecar.Stats) {
	page.line("l1", "%v copies of others' entries, %v of %v", st.L1.Entries, table.Size(st.L1.Used),
		table.Size(st.L1.Limit))
	page.line("", "%v reads found one, of which %v were outdated", st.L1.Hits, st.L1.Refused)
	cluster := &st.Cluster
	state := "in"
	if !cluster.In {
		state = "out"
	}
	page.line("cluster", "%v hosts live, this one is %v and owns %v of %v partitions",
		cluster.Members, state, cluster.Owned, kv.Partitions)
	page.line("", "asked others for %v keys (%v reads shared an answer), served %v keys to others",
		cluster.PeerReads, cluster.Joined, cluster.Served)
	invalidations := &cluster.Invalidations
	page.line("", "invalidations: %v here, %v applied from others (the last waited %v), %v resets; oldest lease %v",
		invalidations.Head, invalidations.Applied, micros(invalidations.LagUS),
		invalidations.Gaps+invalidations.Resets, oldest(invalidations.Leases))
	handoff := &cluster.Handoff
	page.line("", "handoffs under way: %v; entries handed over: %v came, %v went",
		handoffs(handoff), handoff.Admitted+handoff.Fetched, handoff.Sent)
}

// feed writes the line of a feed of changes.
func (page *statsPage) feed(changes *cachesidecar.ChangesStats) {
	certified := ""
	if changes.MaxLagMS > 0 {
		certified = fmt.Sprintf(", certified %v ago", millis(changes.CertifiedMS))
	}
	if !changes.Following {
		page.line("changes", "feed %v: %v%v", changes.Name, changes.State, certified)
		return
	}
	page.line("changes", "feed %v: following, %v behind%v, %v rows, %v keys deleted, %v flushes; the server keeps %v",
		changes.Name, millis(changes.LagMS), certified, changes.Rows, changes.Deletions, changes.Flushes,
		table.Size(changes.KeptBytes))
}

// oldest returns the age of the oldest lease on another host. Copies of that host's entries may lag that far behind.
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

// findingsShown is the most findings of one kind on a page.
const findingsShown = 12

// health writes the first lines of a host's page: whether it is well, and what hurts.
func (page *statsPage) health(st *cachesidecar.Stats) {
	text, why := telemetry.ConditionOf(st)
	if len(why) > 0 {
		text += ": "
	}
	page.list("health", text+why.FirstPlain(findingsShown, "\n"))
	if hurts := telemetry.HurtsOf(st); len(hurts) > 0 {
		page.list("hurts", hurts.FirstPlain(findingsShown, "\n"))
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
