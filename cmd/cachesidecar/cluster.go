package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// clusterCommands are those about hosts, and what passes between them.
func clusterCommands(p *program) []*cli.Command {
	return []*cli.Command{{
		Name:        "changes",
		Usage:       "show the feeds that delete what changes at an origin",
		Flags:       clientFlags(jsonFlag),
		Action:      withArgsAndClient(0, 0, p.feeds),
		Description: "Of all hosts of the cluster, one follows each feed.",
		Subcommands: []*cli.Command{{
			Name:      "sql",
			Usage:     "print the statements that prepare a database for the feeds of a configuration file",
			ArgsUsage: "FILE",
			Action:    withArgs(1, 1, p.feedSQL),
		}},
	}, {
		Name:  "drain",
		Usage: "hand over what this host owns to the others, before it is stopped or maintained",
		Description: "The sidecar goes on serving its apps, through the other hosts, until it is stopped or the\n" +
			"drain is undone. SIGTERM drains by itself: \"drain\" is for a host that stays up.",
		Flags: []cli.Flag{
			boolFlag("undo", "take the host's part of the keys back, also in the middle of a drain"),
			boolFlag("force", "drain also the only host: its entries are gone, and its apps get misses and errors"),
			boolFlag("stop", "then end the sidecar, as SIGTERM does, and wait for its end"),
			jsonFlag, socketFlag, tokenFlag, timeoutFlag("wait this `TIME` for the answer", time.Hour),
		},
		Action: withArgs(0, 0, p.drain),
	}, {
		Name:   "members",
		Usage:  "list the hosts of the cluster, as this one sees them, or forget one that is gone",
		Flags:  clientFlags(jsonFlag),
		Action: withArgsAndClient(0, 0, p.members),
		Subcommands: []*cli.Command{{
			Name:      "forget",
			Usage:     "forget a host that is gone, on all hosts",
			ArgsUsage: "NODE",
			Flags:     clientFlags(),
			Description: "A host that died is listed as missing for an hour, since it may come back.\n" +
				"Until then verify and flush name it. This command drops it at once.\n" +
				"A host that lives is not forgotten: stop it first. A host that comes back later joins as any other.",
			Action: withArgs(1, 1, p.forget),
		}},
	}, {
		Name:      "ring",
		Usage:     "say which host owns a key",
		ArgsUsage: "KEY",
		Flags:     clientFlags(nsFlag, jsonFlag),
		Action:    withArgsAndClient(1, 1, p.ring),
	}, {
		Name:  "verify",
		Usage: "check that no host returns what was overwritten too long ago",
		Description: "The sidecar on this host overwrites keys of its own and lets every host read them, " +
			"as its apps would.\n" +
			"Ends with status 1 if a promise is broken, and if it could not be seen to be kept.",
		Flags: clientFlags(jsonFlag, timeFlag("duration", "how long", 10*time.Second,
			100*time.Millisecond, wire.MaxVerify*time.Millisecond)),
		Action: withArgs(0, 0, p.verify),
	}}
}

func (p *program) members(ctx context.Context, c *cli.Context, cl *client.Client) error {
	list, err := cl.Members(ctx)
	if err != nil {
		return err
	}
	return p.show(c, list, membersTable(list).String())
}

func (p *program) forget(c *cli.Context) error {
	node := c.Args().First()
	if node == "" {
		return usagef("members forget %q: give the name of a host that \"cachesidecar members\" lists", node)
	}
	return withClient(c, func(ctx context.Context, cl *client.Client) error {
		err := cl.Forget(ctx, node)
		if errors.Is(err, cachesidecar.ErrNotFound) {
			fmt.Fprintf(p.err, "no host knows %s: \"cachesidecar members\" lists those that are known\n", node)
			return errStatus1
		}
		return err
	})
}

// membersTable has a line for each host, which ends with what is wrong with the host.
func membersTable(list []cachesidecar.Member) table.Rows {
	t := table.Rows{{"NODE", "ADDRESS", "STATE", "WEIGHT", "PARTITIONS", "EPOCH"}}
	for _, m := range list {
		t.AddRow(m.Node, cmp.Or(m.Address, "-"), m.State, m.Weight, m.Partitions, m.Epoch,
			cmp.Or(m.Why, telemetry.OtherSettings(m.Differs)))
	}
	return t
}

func (p *program) ring(ctx context.Context, c *cli.Context, cl *client.Client) error {
	at, err := cl.Ring(ctx, c.Args().First())
	if err != nil {
		return err
	}
	return p.show(c, at, sanitizedf("partition %d, assigned to %s, owned by %s\n",
		at.Partition, cmp.Or(at.AssignedOwner, "no host"), cmp.Or(at.Owner, "no host")))
}

func (p *program) drain(c *cli.Context) error {
	o := cachesidecar.DrainOptions{Undo: c.Bool("undo"), Force: c.Bool("force"), Stop: c.Bool("stop")}
	if o.Undo && (o.Force || o.Stop) {
		return usagef("--undo stands alone: leave out --force and --stop")
	}
	return withClient(c, func(ctx context.Context, cl *client.Client) error {
		soon, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		before, err := cl.Stats(soon)
		if err != nil {
			return err
		}
		if o.Undo { // it is answered at once
			ctx = soon
		}
		stop := func() {}
		if isTerminal(p.err) && !o.Undo {
			fmt.Fprint(p.err, sanitizedf("draining %s: %s partitions\n", before.Node,
				table.Count(int64(before.Cluster.Owned))))
			stop = background(ctx, func(ctx context.Context) { p.handingOver(ctx, cl, before) })
		}
		d, err := cl.Drain(ctx, o)
		stop()
		if err != nil {
			return err
		}
		if o.Stop && !d.Undone {
			if err := awaitExit(ctx, int(before.Process.PID)); err != nil {
				return err
			}
		}
		if err := p.show(c, d, drainedText(d, o)); err != nil {
			return err
		}
		if d.Undone && !o.Undo {
			return errStatus1
		}
		return nil
	})
}

// handingOver writes how far a handover is, until ctx ends.
func (p *program) handingOver(ctx context.Context, cl *client.Client, before cachesidecar.Stats) {
	for sleep(ctx, 2*time.Second) == nil {
		if st, err := cl.Stats(ctx); err == nil && before.L2.Entries > 0 {
			sent := st.Cluster.Handoff.Sent - before.Cluster.Handoff.Sent
			fmt.Fprint(p.err, sanitizedf("%d %%: %s of %s entries\n", min(100, sent*100/before.L2.Entries),
				table.Count(sent), table.Count(before.L2.Entries)))
		}
	}
}

// awaitExit waits until a process is gone.
func awaitExit(ctx context.Context, pid int) error {
	for syscall.Kill(pid, 0) != syscall.ESRCH {
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("process %d of the sidecar has not ended: %w", pid, err)
		}
	}
	return nil
}

func drainedText(d cachesidecar.Drained, o cachesidecar.DrainOptions) string {
	switch {
	case o.Undo && d.Undone:
		return sanitizedf("%s takes its part of the keys again\n", d.Node)
	case o.Undo:
		return sanitizedf("%s was not drained\n", d.Node)
	case d.Undone:
		return sanitizedf("the drain of %s was undone\n", d.Node)
	}
	text := sanitizedf("%s has handed over %s partitions with %s entries in %v\n", d.Node,
		table.Count(d.Partitions-d.NotTaken), table.Count(d.Entries), millis(d.TookMS))
	if d.NotTaken > 0 {
		text += fmt.Sprintf("%s partitions were taken by no other host\n", table.Count(d.NotTaken))
	}
	if o.Stop {
		text += sanitizedf("%s has ended\n", d.Node)
	}
	return text
}

func (p *program) feeds(ctx context.Context, c *cli.Context, cl *client.Client) error {
	st, err := cl.Stats(ctx)
	if err != nil {
		return err
	}
	return p.show(c, st.Changes, feedsText(st.Changes))
}

func (p *program) feedSQL(c *cli.Context) error {
	cfg, err := configfile.Load(c.Args().First())
	if err = cmp.Or(err, cfg.Wrong.OrNil()); err != nil {
		return err
	}
	text, err := cfg.FeedSQL()
	if err == nil && text == "" {
		err = errors.New("the file has no feed: give changes")
	}
	if err == nil {
		_, err = io.WriteString(p.out, text)
	}
	return err
}

// feedsText has a table of the feeds, and a line for each thing to be told of one.
func feedsText(all []cachesidecar.ChangesStats) string {
	if len(all) == 0 {
		return "no feed is configured: see \"changes\" in the configuration\n"
	}
	t := table.Rows{{"FEED", "STATE", "LAG", "UNDER WAY", "ROWS", "DELETED", "FLUSHES", "GAPS", "KEPT"}}
	more := ""
	for _, f := range all {
		lag := table.RightAligned("-")
		if f.Following {
			lag = table.RightAligned(millis(f.LagMS).String())
		}
		t.AddRow(f.Name, f.State, lag, f.UnderWay, f.Rows, f.Deletions, f.Flushes, f.Gaps, table.Size(f.KeptBytes))
		if f.Error != "" {
			more += sanitizedf("%s (%s): %s\n", f.Name, f.State, f.Error)
		}
		switch {
		case f.Late:
			more += sanitizedf("%s\n", telemetry.FeedLate(&f))
		case f.MaxLagMS > 0:
			more += sanitizedf("%s is certified up to %v ago; max_lag is %v\n",
				f.Name, millis(f.CertifiedMS), millis(f.MaxLagMS))
		}
		if f.LastGap != "" {
			more += sanitizedf("%s began anew: %s\n", f.Name, f.LastGap)
		}
	}
	return t.String() + more
}

func (p *program) verify(c *cli.Context) error {
	duration := c.Duration("duration")
	ctx, cancel := context.WithTimeout(c.Context, duration+c.Duration("timeout"))
	defer cancel()
	cl, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	v, err := cl.Verify(ctx, duration)
	if err != nil {
		return explain(c, err)
	}
	err = p.show(c, v, verifiedText(&v))
	if err == nil && (v.ViolationsTotal > 0 || len(v.Inconclusive) > 0) {
		return errStatus1
	}
	return err
}

// promises are the descriptions of the checks.
var promises = map[string]string{
	"read_your_writes": "a host reads what was written through it",
	"bound":            "nothing that was overwritten longer ago than the bound",
	"fresh":            "a fresh read sees every write before it",
}

func verifiedText(v *cachesidecar.Verified) string {
	var w strings.Builder
	fmt.Fprintf(&w, "%s writes of %d keys in %v, bound %v", table.Count(v.Writes), v.Keys, millis(v.DurationMS),
		millis(v.BoundMS))
	if v.WriteErrors > 0 {
		fmt.Fprintf(&w, "; %s more failed", table.Count(v.WriteErrors))
	}
	fmt.Fprintf(&w, "\n\n")
	nodes := table.Rows{{"NODE", "L1", "L2", "PEER", "FRESH", "MISSES", "ERRORS", "STALE FOR, AT MOST"}}
	for _, n := range v.Nodes {
		nodes.AddRow(n.Node, n.L1, n.L2, n.Peer, n.Fresh, n.Misses, n.Errors, micros(n.StaleMaxUS))
	}
	parts := table.Rows{{"OVERWRITTEN FOR", "READS"}}
	for i, b := range v.Staleness {
		what := "up to " + millis(b.UpToMS).String()
		if i == 0 {
			what = "not at all"
		}
		if b.Reads > 0 || i == 0 {
			parts.AddRow(what, b.Reads)
		}
	}
	fmt.Fprintf(&w, "%s\n%s\n", nodes, parts)
	for _, s := range v.Violations {
		w.WriteString(sanitizedf("BROKEN: %s\n", s))
	}
	if more := v.ViolationsTotal - int64(len(v.Violations)); more > 0 {
		fmt.Fprintf(&w, "... and %s more\n", table.Count(more))
	}
	for _, s := range v.Inconclusive {
		w.WriteString(sanitizedf("not conclusive: %s\n", s))
	}
	if v.ViolationsTotal == 0 && len(v.Inconclusive) == 0 {
		var kept []string
		for _, name := range v.Checked {
			kept = append(kept, promises[name])
		}
		fmt.Fprintf(&w, "kept: %s\n", strings.Join(kept, "; "))
		if len(v.Nodes) == 1 {
			fmt.Fprintf(&w, "this host is alone: it has no copies to check\n")
		}
	}
	return w.String()
}
