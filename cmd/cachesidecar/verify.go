package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func verifyCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "verify",
		Usage: "check that no host returns what was overwritten too long ago",
		Description: "The sidecar on this host overwrites keys of its own and lets every host read them, " +
			"as its apps would.\n" +
			"Ends with status 1 if a promise is broken, and if it could not be seen to be kept.",
		Flags: clientFlags(jsonFlag, timeFlag("duration", "how long", 10*time.Second,
			100*time.Millisecond, wire.MaxVerify*time.Millisecond)),
		Action: counted(0, 0, p.verify),
	}
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
	err = p.show(c, v, verifiedText(shown(&v)))
	if err == nil && (v.ViolationsTotal > 0 || len(v.Inconclusive) > 0) {
		return errMiss
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
	fmt.Fprintf(&w, "%s writes of %d keys in %v, bound %v", count(v.Writes), v.Keys, millis(v.DurationMS),
		millis(v.BoundMS))
	if v.WriteErrors > 0 {
		fmt.Fprintf(&w, "; %s more failed", count(v.WriteErrors))
	}
	fmt.Fprintf(&w, "\n\n")
	nodes := table{{"NODE", "L1", "L2", "PEER", "FRESH", "MISSES", "ERRORS", "STALE FOR, AT MOST"}}
	for _, n := range v.Nodes {
		nodes.row(n.Node, n.L1, n.L2, n.Peer, n.Fresh, n.Misses, n.Errors, micros(n.StaleMaxUS))
	}
	parts := table{{"OVERWRITTEN FOR", "READS"}}
	for i, b := range v.Staleness {
		what := "up to " + millis(b.UpToMS).String()
		if i == 0 {
			what = "not at all"
		}
		if b.Reads > 0 || i == 0 {
			parts.row(what, b.Reads)
		}
	}
	fmt.Fprintf(&w, "%s\n%s\n", nodes, parts)
	for _, s := range v.Violations {
		fmt.Fprintf(&w, "BROKEN: %s\n", s)
	}
	if more := v.ViolationsTotal - int64(len(v.Violations)); more > 0 {
		fmt.Fprintf(&w, "... and %s more\n", count(more))
	}
	for _, s := range v.Inconclusive {
		fmt.Fprintf(&w, "not conclusive: %s\n", s)
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
