package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func (p *program) versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print build, protocol and Go version",
		Flags: []cli.Flag{jsonFlag},
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			if c.Bool("json") {
				return p.json(map[string]any{"version": buildVersion(), "protocol": wire.Version, "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(p.out, "cachesidecar %s, protocol %d, %s\n", buildVersion(), wire.Version, runtime.Version())
			return err
		},
	}
}

func (p *program) healthCommand() *cli.Command {
	return &cli.Command{
		Name:        "health",
		Usage:       "say whether the sidecar serves",
		Description: "Exit status 0 if it serves, 1 if it is up and not ready, 3 if it is not there.",
		Flags:       clientFlags(),
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			err := p.withClient(c, func(ctx context.Context, cl *client.Client) error { return cl.Ping(ctx) })
			switch {
			case err == nil:
				_, err = fmt.Fprintln(p.out, "serving")
			case timedOut(err):
				return fmt.Errorf("it is up and does not answer: %v", err) // not the status of a timeout
			}
			return err
		},
	}
}

func (p *program) flushCommand() *cli.Command {
	return &cli.Command{
		Name:  "flush",
		Usage: "drop everything, or a namespace",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "drop this `NAMESPACE` alone"},
			&cli.BoolFlag{Name: "cluster", Usage: "on every host", DisableDefaultText: true},
			&cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask", DisableDefaultText: true},
		),
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			what, where := "everything", "on this host"
			if ns := c.String("ns"); ns != "" {
				what = "namespace " + ns
			}
			if c.Bool("cluster") {
				where = "on every host of the cluster"
			}
			if !c.Bool("yes") && isTerminal(p.in) {
				fmt.Fprintf(p.err, "Drop %s %s? [y/N] ", what, where)
				answer, err := waitFor(c.Context, func() (s string, err error) {
					_, err = fmt.Fscanln(p.in, &s)
					return s, err
				})
				if err != nil || !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
					return errors.New("nothing dropped")
				}
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				return cl.Flush(ctx, client.FlushOptions{All: c.String("ns") == "", Cluster: c.Bool("cluster")})
			})
		},
	}
}

func (p *program) membersCommand() *cli.Command {
	return &cli.Command{
		Name:  "members",
		Usage: "list the hosts of the cluster, as this one sees them",
		Flags: clientFlags(jsonFlag),
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				list, err := cl.Members(ctx)
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return p.json(list)
				}
				w := tabwriter.NewWriter(p.out, 0, 0, 2, ' ', 0)
				fmt.Fprintln(w, "NODE\tADDRESS\tSTATE\tEPOCH")
				for _, m := range list {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Node, m.Address, m.State, m.Epoch)
				}
				return w.Flush()
			})
		},
	}
}

func (p *program) ringCommand() *cli.Command {
	return &cli.Command{
		Name:      "ring",
		Usage:     "say which host owns a key",
		ArgsUsage: "KEY",
		Flags:     clientFlags(nsFlag, jsonFlag),
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1); err != nil {
				return err
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				place, err := cl.Ring(ctx, c.Args().First())
				if err != nil {
					return err
				}
				if c.Bool("json") {
					return p.json(place)
				}
				_, err = fmt.Fprintf(p.out, "partition %d, owner %s, held by %s\n", place.Partition, place.Owner, place.Holder)
				return err
			})
		},
	}
}
