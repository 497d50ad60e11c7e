package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
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
