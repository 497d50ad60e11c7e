package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/cli"
	"github.com/cachesidecar/cachesidecar/internal/logs"
)

func (p *program) statsCommand() *cli.Command {
	return &cli.Command{
		Name:  "stats",
		Usage: "show what the sidecar on this host does, or all of them",
		Flags: clientFlags(jsonFlag,
			&cli.BoolFlag{Name: "cluster", Usage: "show every host of the cluster", DisableDefaultText: true},
			&cli.BoolFlag{Name: "watch", Aliases: []string{"w"}, Usage: "show it anew every second, with rates", DisableDefaultText: true},
		),
		Action: counted(0, 0, func(c *cli.Context) error {
			if c.Bool("watch") {
				return p.watchStats(c)
			}
			now, err := p.readStats(c)
			if err != nil {
				return err
			}
			if c.Bool("json") {
				return p.json(now)
			}
			return now.write(p.out, nil)
		}),
	}
}

// reading is the statistics of hosts at one time. It is also the JSON document.
type reading interface {
	// write writes the readable page. With an earlier reading of the same kind it adds
	// rates.
	write(out io.Writer, last reading) error
}

// hostReading is the reading of one host.
type hostReading struct{ cachesidecar.Stats }

func (r *hostReading) write(out io.Writer, last reading) error {
	if l, ok := last.(*hostReading); ok {
		return writeStats(out, shown(r.Stats), &l.Stats)
	}
	return writeStats(out, shown(r.Stats), nil)
}

// clusterReading is the reading of all hosts.
type clusterReading struct{ cachesidecar.ClusterStats }

func (r *clusterReading) write(out io.Writer, _ reading) error {
	all := shown(r.ClusterStats)
	return writeCluster(out, &all)
}

func (p *program) readStats(c *cli.Context) (now reading, err error) {
	err = ask(c, func(ctx context.Context, cl *client.Client) error {
		if c.Bool("cluster") {
			all, err := cl.ClusterStats(ctx)
			now = &clusterReading{all}
			return err
		}
		st, err := cl.Stats(ctx)
		now = &hostReading{st}
		return err
	})
	return now, err
}

// watchStats shows the page until it is interrupted. It connects anew each time, so that
// it survives a restart of the sidecar.
func (p *program) watchStats(c *cli.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var last reading
	for {
		now, err := p.readStats(c)
		switch {
		case c.Context.Err() != nil:
			return nil
		case err != nil && last == nil:
			return err
		case err != nil:
			fmt.Fprintln(p.err, "cachesidecar:", logs.Lines(err.Error()))
		default:
			if err := p.showStats(c, now, last); err != nil {
				return err
			}
			last = now
		}
		select {
		case <-c.Context.Done():
			return nil
		case <-tick.C:
		}
	}
}

// showStats writes one page of --watch, or one JSON document.
func (p *program) showStats(c *cli.Context, now, last reading) error {
	if c.Bool("json") {
		return p.json(now)
	}
	var page bytes.Buffer
	if isTerminal(p.out) {
		page.WriteString("\x1b[H\x1b[2J")
	}
	if err := now.write(&page, last); err != nil {
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

// work counts the requests of apps.
type work struct{ hits, misses, writes, deletes, errors int64 }

func (w work) reads() int64 { return w.hits + w.misses }

// totals adds up the namespaces.
func totals(st cachesidecar.Stats) (t work) {
	for _, ns := range st.Namespaces {
		t.hits += ns.Hits
		t.misses += ns.Misses
		t.writes += ns.Writes
		t.deletes += ns.Deletes
		t.errors += ns.Errors
	}
	return t
}

// writeStats writes the readable page. With an earlier reading it adds rates.
func writeStats(out io.Writer, st cachesidecar.Stats, last *cachesidecar.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	t := totals(st)
	up := (time.Duration(st.UptimeMS) * time.Millisecond).Round(time.Second)
	fmt.Fprintf(w, "%s\tcachesidecar %s, up %v\n\n", st.Node, st.Server, up)
	fmt.Fprintf(w, "reads\t%s, %s hits\n", count(t.reads()), percent(t.hits, t.reads()))
	fmt.Fprintf(w, "writes\t%s, deletes %s, errors %s\n", count(t.writes), count(t.deletes), count(t.errors))
	if last != nil && st.UptimeMS > last.UptimeMS {
		l, s := totals(*last), float64(st.UptimeMS-last.UptimeMS)/1000
		rate := func(now, then int64) string { return count(int64(float64(now-then) / s)) }
		fmt.Fprintf(w, "rates\t%s reads/s, %s writes/s, %s in/s, %s out/s\n", rate(t.reads(), l.reads()), rate(t.writes, l.writes),
			size(int64(float64(st.Connections.BytesIn-last.Connections.BytesIn)/s)), size(int64(float64(st.Connections.BytesOut-last.Connections.BytesOut)/s)))
	}
	c := st.Connections
	fmt.Fprintf(w, "socket\t%s of %s connections, %s requests wait\n", count(c.Open), count(c.Limit), count(c.InFlight))
	if c.Waiting > 0 {
		fmt.Fprintf(w, "\t%s of them wait for their turn to begin: their users open many at once\n", count(c.Waiting))
	}
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
	if st.L2.Collided+st.L2.CrowdedOut+st.L2.SplitsRefused > 0 {
		fmt.Fprintf(w, "\tchosen hashes: %s evicted for a key of the same hash, %s in full pages, %s splits refused\n",
			count(st.L2.Collided), count(st.L2.CrowdedOut), count(st.L2.SplitsRefused))
	}
	if st.L1.Limit > 0 { // other hosts may join
		writeOthers(w, &st)
	}
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
	if err := w.Flush(); err != nil {
		return err
	}
	return writeLoads(out, &st)
}

// writeLoads writes the loads of the sidecar and of the apps, if there are any.
func writeLoads(out io.Writer, st *cachesidecar.Stats) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	head := "\nORIGIN OF\tKIND\tLOADS\tCOLLAPSED\tABSENT\tFAILED\tSHED\tSTALE\tMEAN TIME\tBREAKER\t\n"
	for _, ns := range st.Namespaces {
		l := ns.Loads
		if l.Origin == "" {
			continue
		}
		fmt.Fprint(w, head)
		head = ""
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v\t%s\t\n", ns.Name, l.Origin, count(l.Loads), count(l.Collapsed),
			count(l.Absent), count(l.Failed), count(l.Shed), count(ns.Stale), time.Duration(l.MeanUS)*time.Microsecond, l.Breaker)
	}
	if t := st.Leases; t.Issued > 0 {
		fmt.Fprintf(w, "\nleases: %s tokens for apps to load, %s filled, %s not stored, %s waited instead; %s expired, %s given back; %s out\n",
			count(t.Issued), count(t.Filled), count(t.NotStored), count(t.Collapsed), count(t.Expired), count(t.Abandoned), count(t.Out))
	}
	return w.Flush()
}
