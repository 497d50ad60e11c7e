package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
)

func (p *program) statsCommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "show what the sidecar on this host does",
		Flags: clientFlags(jsonFlag,
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it anew every second, with rates", DisableDefaultText: true},
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			if c.Bool("watch") {
				return p.watchStats(c)
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				st, err := cl.Stats(ctx)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return p.json(st)
				}
				return writeStats(p.out, st, nil)
			})
		},
	}
}

// watchStats shows the page until it is interrupted. It makes a connection
// anew each time, so that it outlives a restart of the sidecar.
func (p *program) watchStats(c *cli.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last *client.Stats
	for {
		var st client.Stats
		err := p.withClient(c, func(ctx context.Context, cl *client.Client) (err error) {
			st, err = cl.Stats(ctx)
			return err
		})
		switch {
		case c.Context.Err() != nil:
			return nil
		case err != nil && last == nil:
			return err
		case err != nil:
			fmt.Fprintln(p.err, "cachesidecar:", err)
		default:
			if err := p.showStats(c, st, last); err != nil {
				return err
			}
			last = &st
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showStats writes one page of --watch, or one JSON document.
func (p *program) showStats(c *cli.Context, st client.Stats, last *client.Stats) error {
	if c.Bool("json") {
		return p.json(st)
	}
	var page bytes.Buffer
	if isTerminal(p.out) {
		page.WriteString("\x1b[H\x1b[2J")
	}
	if err := writeStats(&page, st, last); err != nil {
		return err
	}
	page.WriteByte('\n')
	_, err := p.out.Write(page.Bytes())
	return err
}

func count(n int64) string { return humanize.Comma(n) }
func size(n int64) string  { return humanize.IBytes(uint64(max(n, 0))) }

func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

// totals adds up the namespaces.
func totals(st client.Stats) (t struct{ hits, misses, writes, deletes, errors int64 }) {
	for _, ns := range st.Namespaces {
		t.hits += ns.Hits
		t.misses += ns.Misses
		t.writes += ns.Writes
		t.deletes += ns.Deletes
		t.errors += ns.Errors
	}
	return t
}

// writeStats writes the readable page; with an earlier reading, rates too.
func writeStats(out io.Writer, st client.Stats, last *client.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	t := totals(st)
	up := (time.Duration(st.UptimeMS) * time.Millisecond).Round(time.Second)
	fmt.Fprintf(w, "%s\tcachesidecar %s, up %v\n\n", st.Node, st.Server, up)
	fmt.Fprintf(w, "reads\t%s, %s hits\n", count(t.hits+t.misses), percent(t.hits, t.hits+t.misses))
	fmt.Fprintf(w, "writes\t%s, deletes %s, errors %s\n", count(t.writes), count(t.deletes), count(t.errors))
	if last != nil && st.UptimeMS > last.UptimeMS {
		l, s := totals(*last), float64(st.UptimeMS-last.UptimeMS)/1000
		rate := func(now, then int64) string { return count(int64(float64(now-then) / s)) }
		fmt.Fprintf(w, "rates\t%s reads/s, %s writes/s, %s in/s, %s out/s\n", rate(t.hits+t.misses, l.hits+l.misses), rate(t.writes, l.writes),
			size(int64(float64(st.Connections.BytesIn-last.Connections.BytesIn)/s)), size(int64(float64(st.Connections.BytesOut-last.Connections.BytesOut)/s)))
	}
	c := st.Connections
	fmt.Fprintf(w, "socket\t%s of %s connections, %s requests wait\n", count(c.Open), count(c.Limit), count(c.InFlight))
	if c.Rejected+c.SlowReaders+c.SlowFrames+c.BadFrames > 0 {
		fmt.Fprintf(w, "\tcut off: %s over the limit, %s took no answers, %s sent too slowly, %s sent bad frames\n",
			count(c.Rejected), count(c.SlowReaders), count(c.SlowFrames), count(c.BadFrames))
	}
	m := st.L2.Memory
	fmt.Fprintf(w, "l2\t%s entries, %s of %s\n", count(st.L2.Entries), size(m.Used), size(m.Limit))
	fmt.Fprintf(w, "\tkeys and values %s, headers %s, index %s, ghosts %s, dead %s, unfilled %s\n",
		size(m.Payload), size(m.Headers+m.Alignment), size(m.Index), size(m.Ghosts), size(m.Dead), size(m.Open+m.Tails))
	fmt.Fprintf(w, "\tgone: %s evicted, %s expired, %s flushed, %s over quota\n",
		count(st.L2.Evicted), count(st.L2.Expired), count(st.L2.Flushed), count(st.L2.QuotaEvicted))
	pr := st.Process
	fmt.Fprintf(w, "process\tpid %d, resident %s, Go heap %s, %s goroutines\n", pr.PID, size(pr.ResidentBytes), size(pr.HeapBytes), count(pr.Goroutines))
	fmt.Fprintf(w, "\tgarbage collection %.2f %% of CPU, longest pause %v\n\n", 100*pr.GCCPUShare, time.Duration(pr.GCPauseMaxUS)*time.Microsecond)
	if err := w.Flush(); err != nil {
		return err
	}
	w = tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "NAMESPACE\tENTRIES\tBYTES\tQUOTA\tHITS\tMISSES\tHIT RATIO\tWRITES\tDELETES\t")
	for _, ns := range st.Namespaces {
		quota := "-"
		if ns.Quota > 0 {
			quota = size(ns.Quota)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", ns.Name, count(ns.Entries), size(ns.Bytes), quota,
			count(ns.Hits), count(ns.Misses), percent(ns.Hits, ns.Hits+ns.Misses), count(ns.Writes), count(ns.Deletes))
	}
	return w.Flush()
}
