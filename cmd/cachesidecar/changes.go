package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

func changesCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "changes",
		Usage:       "show the feeds that delete what changes at an origin",
		Flags:       clientFlags(jsonFlag),
		Description: "Of all hosts of the cluster, one follows each feed.",
		Subcommands: []*cli.Command{changesSQLCommand(p)},
		Action: counted(0, 0, func(c *cli.Context) error {
			return ask(c, func(ctx context.Context, cl *client.Client) error {
				st, err := cl.Stats(ctx)
				if err != nil {
					return err
				}
				return p.show(c, st.Changes, feedsText(&st))
			})
		}),
	}
}

func changesSQLCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "sql",
		Usage:     "print the statements that prepare a database for the feeds of a configuration file",
		ArgsUsage: "FILE",
		Action: counted(1, 1, func(c *cli.Context) error {
			cfg, err := loadConfig(c.Args().First())
			if err != nil {
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
		}),
	}
}

// feedsText has a table of the feeds, and a line for each thing to be told of one.
func feedsText(st *cachesidecar.Stats) string {
	if len(st.Changes) == 0 {
		return "no feed is configured: see \"changes\" in the configuration\n"
	}
	all := shown(st.Changes)
	t := table{{"FEED", "STATE", "LAG", "UNDER WAY", "ROWS", "DELETED", "FLUSHES", "GAPS", "KEPT"}}
	more := ""
	for _, f := range all {
		lag := figure("-")
		if f.Following {
			lag = figure(millis(f.LagMS).String())
		}
		t.row(f.Name, f.State, lag, f.UnderWay, f.Rows, f.Deletions, f.Flushes, f.Gaps, size(f.KeptBytes))
		if f.Error != "" {
			more += fmt.Sprintf("%s (%s): %s\n", f.Name, f.State, f.Error)
		}
		if f.LastGap != "" {
			more += fmt.Sprintf("%s began anew: %s\n", f.Name, f.LastGap)
		}
	}
	return t.String() + more
}
