package main

import (
	"context"
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

func pingCommand(p *program) *cli.Command {
	count := numberFlag("count", "make `N` round trips, one after the other", 1, 1, 1_000_000)
	count.Aliases = []string{"c"}
	return &cli.Command{
		Name:  "ping",
		Usage: "measure round trips to the sidecar on this host",
		Flags: clientFlags(jsonFlag, count,
			boolFlag("alive", "only fail if the sidecar is not there, or does not answer: for a liveness probe")),
		Action: withArgs(0, 0, p.ping),
	}
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
