package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
)

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
	page.line("", "for new entries %.1f %% (of the shards %.1f to %.1f %%)",
		100*store.Admission.Median, 100*store.Admission.Least, 100*store.Admission.Most)
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
