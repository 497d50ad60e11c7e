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
		Action: counted(0, 0, func(c *cli.Context) error {
			if c.Bool("watch") {
				return p.watchStats(c)
			}
			now, err := p.readStats(c)
			if err != nil {
				return err
			}
			return p.show(c, now, now.text(nil))
		}),
	}
}

// reading is the statistics of hosts at one time. It is also the JSON document.
type reading interface {
	// text is the readable page. With an earlier reading of the same kind it has rates.
	text(last reading) string
}

// hostReading is the reading of one host.
type hostReading struct{ cachesidecar.Stats }

func (r *hostReading) text(last reading) string {
	if l, ok := last.(*hostReading); ok {
		return statsText(shown(r.Stats), &l.Stats)
	}
	return statsText(shown(r.Stats), nil)
}

// clusterReading is the reading of all hosts.
type clusterReading struct{ cachesidecar.ClusterStats }

func (r *clusterReading) text(reading) string {
	all := shown(r.ClusterStats)
	return clusterText(&all)
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
			clear := ""
			if isTerminal(p.out) {
				clear = "\x1b[H\x1b[2J"
			}
			if err := p.show(c, now, clear+now.text(last)+"\n"); err != nil {
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
