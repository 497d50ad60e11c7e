package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
)

func flushCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "flush",
		Usage:       "drop everything, or a namespace",
		Description: "It asks first. Without a terminal to ask on it needs --yes.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "drop this `NAMESPACE` alone", Action: notEmpty},
			boolFlag("cluster", "on every host of the cluster, as also without it"),
			boolFlag("this-host", "on this host alone"),
			boolFlag("yes", "do not ask", "y"),
		),
		Action: withArgs(0, 0, p.flush),
	}
}

func (p *program) flush(c *cli.Context) error {
	what, where := "everything", "on every host of the cluster"
	if ns := c.String("ns"); ns != "" {
		what = "namespace " + ns
	}
	if c.Bool("this-host") {
		where = "on this host"
	}
	switch {
	case c.Bool("cluster") && c.Bool("this-host"):
		return usagef("flush: --cluster, --this-host: give one of them")
	case c.Bool("yes"):
	case !isTerminal(p.in):
		return usagef("flush: stdin is no terminal on which to ask: give --yes to drop %s %s", what, where)
	default:
		fmt.Fprintf(p.err, "Drop %s %s? [y/N] ", what, where)
		answer, err := waitFor(c.Context, func() (s string, err error) {
			_, err = fmt.Fscanln(p.in, &s)
			return s, err
		})
		if err != nil || !strings.EqualFold(answer, "y") && !strings.EqualFold(answer, "yes") {
			return errors.New("nothing dropped")
		}
	}
	return withClient(c, func(ctx context.Context, cl *client.Client) error {
		return cl.Flush(ctx, cachesidecar.FlushOptions{All: c.String("ns") == "", Local: c.Bool("this-host")})
	})
}
