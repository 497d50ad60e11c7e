package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// infoCommands are those about one host.
func infoCommands(p *program) []*cli.Command {
	count := numberFlag("count", "make `N` round trips, one after the other", 1, 1, 1_000_000)
	count.Aliases = []string{"c"}
	return []*cli.Command{{
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
	}, {
		Name:  "ping",
		Usage: "measure round trips to the sidecar on this host",
		Flags: clientFlags(jsonFlag, count,
			boolFlag("alive", "only fail if the sidecar is not there, or does not answer: for a liveness probe")),
		Action: withArgs(0, 0, p.ping),
	}, {
		Name:        "health",
		Usage:       "say whether the sidecar serves, and what is wrong",
		Description: "Exit status 0 if it serves, 1 if it is up and not ready, 3 if it cannot be reached.",
		Flags:       clientFlags(jsonFlag),
		Action:      withArgs(0, 0, p.health),
	}, {
		Name:   "version",
		Usage:  "print build, protocol and Go version",
		Flags:  []cli.Flag{jsonFlag},
		Action: withArgs(0, 0, p.version),
	}}
}

func (p *program) version(c *cli.Context) error {
	about := map[string]any{"version": buildVersion(), "protocol": wire.Version, "go": runtime.Version()}
	return p.show(c, about,
		fmt.Sprintf("cachesidecar %s, protocol %d, %s\n", buildVersion(), wire.Version, runtime.Version()))
}

// health is the answer to health, and its JSON.
type health struct {
	Node     string   `json:"node"`     // "" if it did not answer
	State    string   `json:"state"`    // serving, not_well or not_ready
	Findings []string `json:"findings"` // what is wrong
}

// states are the words of a health's line, and of its JSON.
var states = map[string]string{
	telemetry.Serving: "serving", telemetry.NotWell: "not_well", telemetry.NotReady: "not_ready",
}

func (p *program) health(c *cli.Context) error {
	path, err := findSocket(c)
	if err != nil {
		return err
	}
	var st cachesidecar.Stats
	err = withClient(c, func(ctx context.Context, cl *client.Client) (err error) {
		st, err = cl.Stats(ctx)
		return err
	})
	switch {
	case timedOut(err):
		// %v, so that the exit status is not that of a timeout
		return p.showHealth(c, "", telemetry.NotReady, fmt.Sprintf("it is up and does not answer: %v", err))
	case errors.Is(err, cachesidecar.ErrUnavailable) && takesConnections(c.Context, path) == nil:
		return p.showHealth(c, "", telemetry.NotWell, "it refuses this connection: all connections of the socket are "+
			"taken, or it is about to end")
	case err != nil:
		return err
	}
	word, why := telemetry.ConditionOf(&st)
	return p.showHealth(c, st.Node, word, why...)
}

// showHealth prints a state. It returns an error if the host is not ready.
func (p *program) showHealth(c *cli.Context, node, word string, why ...string) error {
	line := word
	if len(why) > 0 {
		line += ": " + telemetry.AtMost(why, telemetry.FewFindings, "; ")
	}
	switch line = logs.Plain(line); {
	case c.Bool("json"):
		err := writeJSON(p.out, health{Node: node, State: states[word], Findings: append([]string{}, why...)}, "  ")
		if err == nil && word == telemetry.NotReady {
			err = errStatus1
		}
		return err
	case word == telemetry.NotReady:
		return errors.New(line)
	}
	_, err := fmt.Fprintln(p.out, line)
	return err
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

// pinged is the result of ping, and its JSON. Times are in microseconds.
type pinged struct {
	Node    string `json:"node"`
	Version string `json:"version"` // of the sidecar's build
	Count   int    `json:"count"`
	MinUS   int64  `json:"min_us"`
	MeanUS  int64  `json:"mean_us"`
	MaxUS   int64  `json:"max_us"`
}

func (p *program) ping(c *cli.Context) error {
	if c.Bool("alive") {
		return alive(c)
	}
	cl, err := connect(c.Context, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	r, err := roundTrips(c.Context, cl, c.Int("count"))
	if err != nil {
		return explain(c, err)
	}
	return p.show(c, r, pingsText(r))
}

// alive returns an error if no process takes connections, or if one does and does not answer.
// A sidecar that refuses a connection, since it has too many, is alive: starting it again
// would cut all apps.
func alive(c *cli.Context) error {
	path, err := findSocket(c)
	if err != nil {
		return err
	}
	if err := takesConnections(c.Context, path); err != nil {
		return explain(c, fmt.Errorf("%w: cannot connect to the sidecar: %w", cachesidecar.ErrUnavailable, err))
	}
	if hangs(c.Context, path, c.Duration("timeout")) {
		return explain(c, fmt.Errorf("%w: the sidecar takes connections and does not answer", cachesidecar.ErrTimeout))
	}
	return nil
}

// takesConnections returns an error if no process takes connections at a socket.
func takesConnections(ctx context.Context, path string) error {
	nc, err := unixsock.Dial(ctx, path)
	if err == nil {
		_ = nc.Close()
	}
	return err
}

func pingsText(r pinged) string {
	if r.Count == 1 {
		return sanitizedf("%s (cachesidecar %s): %v\n", r.Node, r.Version, micros(r.MinUS))
	}
	return sanitizedf("%s (cachesidecar %s): %s round trips, min %v, mean %v, max %v\n", r.Node, r.Version,
		table.Count(r.Count), micros(r.MinUS), micros(r.MeanUS), micros(r.MaxUS))
}

// roundTrips makes n round trips, each of which may take --timeout.
func roundTrips(ctx context.Context, cl *client.Client, n int) (r pinged, err error) {
	host, err := cl.Sidecar(ctx)
	if err != nil {
		return r, err
	}
	r = pinged{Node: host.Node, Version: host.Version, Count: n}
	least, most, sum := time.Duration(0), time.Duration(0), time.Duration(0)
	for i := range n {
		start := time.Now()
		if err := cl.Ping(ctx); err != nil {
			return r, err
		}
		took := time.Since(start)
		if sum += took; i == 0 || took < least {
			least = took
		}
		most = max(most, took)
	}
	r.MinUS, r.MeanUS, r.MaxUS = least.Microseconds(), (sum / time.Duration(n)).Microseconds(), most.Microseconds()
	return r, nil
}
