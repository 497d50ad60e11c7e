package main

import (
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

func (p *program) benchCommand() *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "put load on the sidecar on this host and measure it",
		Description: "First writes the keys, into a namespace of their own, then reads them, then writes them again.\n" +
			"The load generator shares the machine with the sidecar, so this is a lower bound.",
		Flags: []cli.Flag{
			socketFlag, jsonFlag,
			&cli.IntFlag{Name: "conns", Usage: "connections", Value: 16},
			&cli.IntFlag{Name: "pipeline", Usage: "requests in flight, a connection", Value: 64},
			&cli.DurationFlag{Name: "duration", Usage: "of each measurement", Value: 3 * time.Second},
			&cli.IntFlag{Name: "keys", Usage: "how many", Value: 100_000},
			&cli.IntFlag{Name: "key-size", Usage: "in bytes", Value: 16},
			&cli.IntFlag{Name: "size", Usage: "of values, in bytes", Value: 100},
			&cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "bench"},
		},
		Action: func(c *cli.Context) error {
			if err := args(c, 0, 0); err != nil {
				return err
			}
			return p.bench(c)
		},
	}
}

// benchResult is a line of bench's JSON.
type benchResult struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"requests_per_second"`
	HitRatio  float64 `json:"hit_ratio"` // of writes: the share that was stored
	P50US     float64 `json:"p50_us"`    // of a connection's batch
	P99US     float64 `json:"p99_us"`
	MaxUS     float64 `json:"max_us"`
}

func (p *program) bench(c *cli.Context) error {
	for _, f := range []struct {
		name        string
		least, most int
	}{{"conns", 1, 10_000}, {"pipeline", 1, 1024}, {"keys", 1, 100_000_000}, {"key-size", 16, 1024}, {"size", 0, 1 << 20}} {
		if n := c.Int(f.name); n < f.least || n > f.most {
			return usagef("--%s %d: give %d to %d", f.name, n, f.least, f.most)
		}
	}
	path, err := unixsock.Find(c.String("socket"))
	if err != nil {
		return fmt.Errorf("%w: %w", client.ErrUnavailable, err)
	}
	keys, size := c.Int("keys"), c.Int("size")
	read := load.Sidecar{Namespace: c.String("ns"), KeySize: c.Int("key-size")}
	write := read
	write.Value = make([]byte, size)
	cfg := load.Config{
		Dial: func() (net.Conn, error) {
			nc, err := net.Dial("unix", path)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", client.ErrUnavailable, err)
			}
			return nc, nil
		},
		Conns: c.Int("conns"), Pipeline: c.Int("pipeline"),
		Duration: c.Duration("duration"), WarmUp: c.Duration("duration") / 10,
		Key: func(int, int) uint64 { return rand.Uint64N(uint64(keys)) },
	}
	fill := cfg
	fill.Conns, fill.Pipeline, fill.Protocol, fill.Once = 1, 64, write, true
	fill.Batches = (keys + fill.Pipeline - 1) / fill.Pipeline
	fill.Key = func(_, n int) uint64 { return uint64(n % keys) }
	if _, err := load.Run(c.Context, fill); err != nil {
		return err
	}
	var results []benchResult
	if !c.Bool("json") {
		fmt.Fprintf(p.out, "%d connections × %d requests in flight, %d keys of %d bytes, values of %d bytes\n",
			cfg.Conns, cfg.Pipeline, keys, read.KeySize, size)
	}
	for _, m := range []struct {
		name     string
		protocol load.Protocol
	}{{"GET", read}, {"SET", write}} {
		cfg.Protocol = m.protocol
		r, err := load.Run(c.Context, cfg)
		if err != nil {
			return err
		}
		us := func(q float64) float64 { return float64(r.Latency.ValueAtQuantile(q)) / 1000 }
		b := benchResult{m.name, r.PerSecond(), float64(r.Hits) / float64(max(r.Requests, 1)), us(50), us(99), us(100)}
		results = append(results, b)
		if !c.Bool("json") {
			fmt.Fprintf(p.out, "%s  %10.0f requests/s  %5.1f %% %s  batch p50 %.0f µs, p99 %.0f µs, max %.0f µs\n",
				b.Name, b.PerSecond, 100*b.HitRatio, map[string]string{"GET": "hits", "SET": "stored"}[b.Name], b.P50US, b.P99US, b.MaxUS)
		}
	}
	if c.Bool("json") {
		return p.json(results)
	}
	return nil
}
