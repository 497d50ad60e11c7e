package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/load"
	"github.com/cachesidecar/cachesidecar/internal/table"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

func benchCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "bench",
		Usage: "put load on the sidecar on this host and measure it",
		Description: "Writes the keys, into a namespace of their own, then reads them, then writes them again, and\n" +
			"removes them at the end, also after an interrupt.\n" +
			"The load generator shares the machine with the sidecar, so this is a lower bound.",
		Flags: []cli.Flag{
			jsonFlag,
			numberFlag("conns", "connections", 16, 1, 10_000),
			numberFlag("pipeline", "requests in flight, a connection", 64, 1, 1024),
			timeFlag("duration", "of each measurement", 3*time.Second, time.Millisecond, time.Hour),
			numberFlag("keys", "how many", 100_000, 1, 100_000_000),
			numberFlag("key-size", "in bytes", 16, 16, 1024),
			numberFlag("size", "of values, in bytes", 100, 0, 1<<20),
			&cli.StringFlag{Name: "ns", Usage: "the `NAMESPACE`", Value: "bench", Action: notEmpty},
			socketFlag, tokenFlag,
			timeoutFlag("wait this `TIME` for the answers to a batch", 10*time.Second),
		},
		Action: withArgs(0, 0, p.bench),
	}
}

// Limits of bench's memory, in bytes, for the requests that it builds beforehand. It
// builds as many batches as fit, at least one per connection.
const (
	maxBatches  = 512 << 20 // one batch of every connection
	maxPrebuilt = 256 << 20 // the batches that are repeated
	fillChunk   = 64 << 20  // the requests that fill writes at a time
)

// perRequest is the most that a request or an answer has beside key and value, in bytes.
const perRequest = 64

// inOneGo is the size of a batch that surely fits into a socket, in bytes. If both the
// requests and the answers of a batch are longer, the batch could block forever: bench
// writes all requests before it reads, and the sidecar reads on only after its answers
// have been read.
const inOneGo = 64 << 10

// benchFlags are the flags of bench.
type benchFlags struct {
	conns, pipeline, keys, keySize, size int
	duration                             time.Duration
}

func readBenchFlags(c *cli.Context) (f benchFlags, err error) {
	f = benchFlags{
		c.Int("conns"), c.Int("pipeline"), c.Int("keys"), c.Int("key-size"), c.Int("size"), c.Duration("duration"),
	}
	if n := f.pipeline * (f.keySize + perRequest); n > inOneGo && f.pipeline*(f.size+perRequest) > inOneGo {
		return f, usagef("--pipeline %d: %d keys of %d bytes ask for more at once than a socket holds, and values "+
			"of %d bytes answer more: give --pipeline %d or less",
			f.pipeline, f.pipeline, f.keySize, f.size, inOneGo/(min(f.keySize, f.size)+perRequest))
	}
	if n := f.conns * f.pipeline * f.request(); n > maxBatches {
		return f, usagef("--conns %d × --pipeline %d × --size %d: the requests take %s, at most %s: "+
			"lower one of them",
			f.conns, f.pipeline, f.size, table.Size(int64(n)), table.Size(maxBatches))
	}
	return f, nil
}

// request returns the highest length of a SET, in bytes.
func (f benchFlags) request() int { return f.keySize + f.size + perRequest }

// benchResult is a result in bench's JSON.
type benchResult struct {
	Name      string  `json:"name"`
	PerSecond float64 `json:"requests_per_second"`
	HitRatio  float64 `json:"hit_ratio"` // for writes: the share that was stored
	P50US     float64 `json:"p50_us"`    // latency of a connection's batch
	P99US     float64 `json:"p99_us"`
	MaxUS     float64 `json:"max_us"`
}

func (p *program) bench(c *cli.Context) (err error) {
	f, err := readBenchFlags(c)
	if err != nil {
		return err
	}
	dial, token, err := benchTarget(c)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, removeKeys(c, f)) }()
	read := load.Sidecar{Namespace: c.String("ns"), Token: token, KeySize: f.keySize}
	write := read
	write.Value = make([]byte, f.size)
	if err := fill(c.Context, f, load.Config{Dial: dial, Protocol: write}); err != nil {
		return cmp.Or(c.Context.Err(), explain(c, err))
	}
	cfg := load.Config{
		Dial: dial, Conns: f.conns, Pipeline: f.pipeline, Duration: f.duration, WarmUp: f.duration / 10,
		Key:     func(int, int) uint64 { return rand.Uint64N(uint64(f.keys)) },
		Batches: max(1, min(64<<10, maxPrebuilt/f.request())/(f.conns*f.pipeline)),
	}
	if !c.Bool("json") {
		if _, err := fmt.Fprintf(p.out, "%d connections × %d requests in flight, "+
			"%d keys of %d bytes, values of %d bytes\n",
			f.conns, f.pipeline, f.keys, f.keySize, f.size); err != nil {
			return err
		}
	}
	var results []benchResult
	for _, m := range []struct {
		name, hits string
		protocol   load.Protocol
	}{{"GET", "hits", read}, {"SET", "stored", write}} {
		cfg.Protocol = m.protocol
		r, err := load.Run(c.Context, cfg)
		if err != nil {
			return cmp.Or(c.Context.Err(), explain(c, err))
		}
		us := func(q float64) float64 { return float64(r.Latency.ValueAtQuantile(q)) / 1000 }
		b := benchResult{m.name, r.PerSecond(), float64(r.Hits) / float64(max(r.Requests, 1)), us(50), us(99), us(100)}
		results = append(results, b)
		if c.Bool("json") {
			continue
		}
		if _, err := fmt.Fprintf(p.out, "%s  %10.0f requests/s  %5.1f %% %s  "+
			"batch p50 %.0f µs, p99 %.0f µs, max %.0f µs\n",
			b.Name, b.PerSecond, 100*b.HitRatio, m.hits, b.P50US, b.P99US, b.MaxUS); err != nil {
			return err
		}
	}
	return p.show(c, results, "")
}

// benchTarget returns how bench connects, and with which token. It connects once as every command does, whose
// errors say what is wrong.
func benchTarget(c *cli.Context) (dial func() (net.Conn, error), token string, err error) {
	cl, err := connect(c.Context, c)
	if err != nil {
		return nil, "", err
	}
	_ = cl.Close()
	path, err := findSocket(c)
	if err != nil {
		return nil, "", err
	}
	token, err = client.ReadToken(tokenFile(c))
	return func() (net.Conn, error) { return dialTimed(c.Context, path, c.Duration("timeout")) }, token, err
}

// removeKeys deletes all keys, also after an interrupt, and then for as long as one batch may take.
func removeKeys(c *cli.Context, f benchFlags) error {
	within := c.Duration("timeout")
	ctx, cancel := context.WithCancel(context.WithoutCancel(c.Context))
	defer cancel()
	defer context.AfterFunc(c.Context, func() { time.AfterFunc(within, cancel) })()
	cl, err := connect(ctx, c)
	if err != nil {
		return err
	}
	defer cl.Close()
	for first := 0; first < f.keys && err == nil; first += wire.MaxKeys {
		keys := make([]string, min(wire.MaxKeys, f.keys-first))
		for i := range keys {
			keys[i] = string(load.Key(nil, uint64(first+i), f.keySize))
		}
		batch, cancel := context.WithTimeout(ctx, within)
		_, err = cl.DeleteMulti(batch, keys, cachesidecar.DeleteOptions{})
		cancel()
	}
	if err != nil {
		return fmt.Errorf("keys of bench are left in the namespace %s, until they expire or it is flushed: %w",
			c.String("ns"), explain(c, err))
	}
	return nil
}

// fill writes every key once, in chunks.
func fill(ctx context.Context, f benchFlags, cfg load.Config) error {
	cfg.Conns, cfg.Pipeline, cfg.Once = 1, min(64, f.keys), true
	chunk := max(1, fillChunk/(cfg.Pipeline*f.request())) * cfg.Pipeline
	for first := 0; first < f.keys; first += chunk {
		n := min(chunk, f.keys-first)
		cfg.Batches = (n + cfg.Pipeline - 1) / cfg.Pipeline
		cfg.Key = func(_, i int) uint64 { return uint64((first + i) % f.keys) }
		if _, err := load.Run(ctx, cfg); err != nil {
			return err
		}
	}
	return nil
}

// timedConn limits how long a batch waits for its answers. Each write begins a batch.
type timedConn struct {
	net.Conn
	timeout time.Duration
}

// dialTimed connects. The connection ends with ctx.
func dialTimed(ctx context.Context, path string, timeout time.Duration) (net.Conn, error) {
	nc, err := unixsock.Dial(ctx, path)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = nc.Close() })
	return timedConn{nc, timeout}, nil
}

func (conn timedConn) Write(b []byte) (int, error) {
	if err := conn.SetDeadline(time.Now().Add(conn.timeout)); err != nil {
		return 0, err
	}
	return conn.Conn.Write(b)
}
