package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

func versionCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:   "version",
		Usage:  "print build, protocol and Go version",
		Flags:  []cli.Flag{jsonFlag},
		Action: counted(0, 0, p.version),
	}
}

func (p *program) version(c *cli.Context) error {
	about := map[string]any{"version": buildVersion(), "protocol": wire.Version, "go": runtime.Version()}
	return p.show(c, about, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "cachesidecar %s, protocol %d, %s\n",
			buildVersion(), wire.Version, runtime.Version())
		return err
	})
}

func healthCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "health",
		Usage:       "say whether the sidecar serves",
		Description: "Exit status 0 if it serves, 1 if it is up and not ready, 3 if it is not there.",
		Flags:       clientFlags(),
		Action:      counted(0, 0, p.health),
	}
}

func (p *program) health(c *cli.Context) error {
	var st cachesidecar.Stats
	why := ""
	err := ask(c, func(ctx context.Context, cl *client.Client) (err error) {
		if st, err = cl.Stats(ctx); err == nil && !st.Cluster.In {
			why = whyOut(ctx, cl, st.Node)
		}
		return err
	})
	switch {
	case timedOut(err):
		// %v, so that the exit status is not that of a timeout
		return fmt.Errorf("it is up and does not answer: %v", err)
	case err != nil:
		return err
	}
	words, err := healthOf(&st, why)
	if err == nil {
		_, err = fmt.Fprintln(p.out, words)
	}
	return err
}

// whyOut returns why a sidecar has not joined the other hosts, as far as it knows.
func whyOut(ctx context.Context, cl *client.Client, node string) string {
	list, err := cl.Members(ctx)
	if err != nil {
		return "" // Stats has answered, which is enough to say that it is not ready
	}
	for _, m := range list {
		if m.Node == node {
			return m.Why
		}
	}
	return ""
}

// healthOf describes how a sidecar that answers serves. Its error tells why the sidecar
// does not serve yet, or that it serves alone although other hosts should be there.
func healthOf(st *cachesidecar.Stats, why string) (string, error) {
	switch c := &st.Cluster; {
	case c.In && c.Isolated != "" && !c.AloneOK:
		return "", fmt.Errorf("it is up and not ready: it is alone: %s; set alone_ok if it may be alone",
			logs.Plain(c.Isolated))
	case c.In && c.Isolated != "":
		return "serving, alone: " + logs.Plain(c.Isolated), nil
	case c.In:
		return "serving", nil
	case why != "":
		return "", fmt.Errorf("it is up and not ready: it has not joined the other hosts: %s", why)
	case c.Members > 1:
		return "", errors.New("it is up and not ready: it has not joined the other hosts; " +
			"see \"cachesidecar members\" and its log")
	}
	return "", errors.New("it is up and not ready: it looks for other hosts at the join addresses")
}

func flushCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:        "flush",
		Usage:       "drop everything, or a namespace",
		Description: "It asks first. Without a terminal to ask on it needs --yes.",
		Flags: clientFlags(
			&cli.StringFlag{Name: "ns", Usage: "drop this `NAMESPACE` alone", Action: named},
			boolFlag("cluster", "on every host of the cluster, as also without it"),
			boolFlag("this-host", "on this host alone"),
			boolFlag("yes", "do not ask", "y"),
		),
		Action: counted(0, 0, p.flush),
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
	return ask(c, func(ctx context.Context, cl *client.Client) error {
		return cl.Flush(ctx, cachesidecar.FlushOptions{All: c.String("ns") == "", Local: c.Bool("this-host")})
	})
}
