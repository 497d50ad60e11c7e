package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

func membersCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "members",
		Usage:       "list the hosts of the cluster, as this one sees them, or forget one that is gone",
		Flags:       clientFlags(jsonFlag),
		Subcommands: []*cli.Command{forgetCommand(p)},
		Action: counted(0, 0, func(c *cli.Context) error {
			return ask(c, func(ctx context.Context, cl *client.Client) error {
				list, err := cl.Members(ctx)
				if err != nil {
					return err
				}
				return p.show(c, list, membersTable(list).String())
			})
		}),
	}
}

func forgetCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "forget",
		Usage:     "forget a host that is gone, on all hosts",
		ArgsUsage: "NODE",
		Flags:     clientFlags(),
		Description: "A host that died is listed as missing for an hour, since it may come back.\n" +
			"Until then verify and flush name it. This command drops it at once.\n" +
			"A host that lives is not forgotten: stop it first. A host that comes back later joins as any other.",
		Action: counted(1, 1, p.forget),
	}
}

func (p *program) forget(c *cli.Context) error {
	node := c.Args().First()
	if node == "" {
		return usagef("members forget %q: give the name of a host that \"cachesidecar members\" lists", node)
	}
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		err := cl.Forget(ctx, node)
		if errors.Is(err, cachesidecar.ErrNotFound) {
			fmt.Fprintf(p.err, "no host knows %s: \"cachesidecar members\" lists those that are known\n", node)
			return errMiss
		}
		return err
	})
}

// membersTable has a line for each host, which ends with what is wrong with the host.
func membersTable(list []cachesidecar.Member) table {
	t := table{{"NODE", "ADDRESS", "STATE", "WEIGHT", "PARTITIONS", "EPOCH"}}
	for _, m := range shown(list) {
		t.row(m.Node, cmp.Or(m.Address, "-"), m.State, m.Weight, m.Partitions, m.Epoch, m.Why)
	}
	return t
}

func ringCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:      "ring",
		Usage:     "say which host owns a key",
		ArgsUsage: "KEY",
		Flags:     clientFlags(nsFlag, jsonFlag),
		Action: counted(1, 1, func(c *cli.Context) error {
			return ask(c, func(ctx context.Context, cl *client.Client) error {
				place, err := cl.Ring(ctx, c.Args().First())
				if err != nil {
					return err
				}
				at := shown(place)
				return p.show(c, place, fmt.Sprintf("partition %d, assigned to %s, owned by %s\n",
					at.Partition, cmp.Or(at.Owner, "no host"), cmp.Or(at.Holder, "no host")))
			})
		}),
	}
}
