package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
)

func (p *program) membersCommand() *cli.Command {
	return &cli.Command{
		Name:        "members",
		Usage:       "list the hosts of the cluster, as this one sees them, or forget one that is gone",
		Flags:       clientFlags(jsonFlag),
		Subcommands: []*cli.Command{p.forgetCommand()},
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
				return writeMembers(p.out, list)
			})
		},
	}
}

func (p *program) forgetCommand() *cli.Command {
	return &cli.Command{
		Name:      "forget",
		Usage:     "forget a host that is gone, on all hosts",
		ArgsUsage: "NODE",
		Flags:     clientFlags(),
		Description: "A host that died is listed as missing for an hour, since it may come back: verify names it, and flush --cluster does. " +
			"This ends it at once. A host that lives is not forgotten: stop it first. One that comes back later joins as any other.",
		Action: func(c *cli.Context) error {
			if err := args(c, 1, 1); err != nil {
				return err
			}
			node := c.Args().First()
			if node == "" {
				return usagef("members forget %q: give the name of a host that \"cachesidecar members\" lists", node)
			}
			return p.withClient(c, func(ctx context.Context, cl *client.Client) error {
				err := cl.Forget(ctx, node)
				if errors.Is(err, client.ErrNotFound) {
					fmt.Fprintf(p.err, "no host knows %s: \"cachesidecar members\" lists those that are known\n", node)
					return errMiss
				}
				return err
			})
		},
	}
}

// writeMembers writes a table. A host's line ends with what is wrong with the host.
func writeMembers(out io.Writer, list []client.Member) error {
	return table(out, 0, func(w io.Writer) {
		fmt.Fprintln(w, "NODE\tADDRESS\tSTATE\tWEIGHT\tPARTITIONS\tEPOCH\t")
		for _, m := range shown(list) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", m.Node, cmp.Or(m.Address, "-"), m.State, m.Weight, count(int64(m.Partitions)), m.Epoch, m.Why)
		}
	})
}

// table aligns the output of f, whose cells are separated by tabs. It leaves no spaces at
// the end of a line.
func table(out io.Writer, flags uint, f func(io.Writer)) error {
	var text bytes.Buffer
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', flags)
	f(w)
	if err := w.Flush(); err != nil {
		return err
	}
	for line := range bytes.Lines(text.Bytes()) {
		if _, err := fmt.Fprintf(out, "%s\n", bytes.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
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
				place = shown(place)
				_, err = fmt.Fprintf(p.out, "partition %d, assigned to %s, owned by %s\n", place.Partition, cmp.Or(place.Owner, "nobody"), cmp.Or(place.Holder, "nobody"))
				return err
			})
		},
	}
}
