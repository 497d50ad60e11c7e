package measure

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Cost measures the processor time that a request costs a server if it is alone on its connection,
// on a machine that is idle otherwise, and on busy ones.
func (b *Bench) Cost(ctx context.Context, p record.CostParameters) (rows []record.CostRow, err error) {
	o := peers.Options{Bytes: socketLimit, KeySize: p.KeySize, ValueSize: p.ValueSize, Memcached: true}
	servers, stop, err := b.startAll(ctx, []string{record.Sidecar, record.Memcached, record.Bare}, o)
	if err != nil {
		return nil, err
	}
	defer stop()
	o.Usual, o.Label = true, "-usual"
	usual, err := b.start(ctx, record.Memcached, o)
	if err != nil {
		return nil, err
	}
	defer usual.Stop()
	sidecar, tuned, bare := servers[0], servers[1], servers[2]
	for _, s := range []*peers.Server{sidecar, tuned, usual} {
		if _, err := fill(ctx, s, p.Keys); err != nil {
			return nil, err
		}
	}
	sides := []costEntrant{
		{ownEntrant(sidecar), sidecar},
		{entrant{record.EndpointText, sidecar.DialMemcached, text(p.Data)}, sidecar},
		{entrant{record.MemcachedText, usual.DialMemcached, text(p.Data)}, usual},
		{entrant{record.MemcachedTuned, tuned.DialMemcached, text(p.Data)}, tuned},
		{entrant{record.Bare, bare.Dial, text(p.Data)}, bare},
	}
	for _, beside := range []string{record.Nothing, record.Spinners, record.Builds} {
		end := b.beside(ctx, beside)
		of, err := b.costRows(ctx, sides, p, beside)
		rows = append(rows, of...)
		if err == nil {
			of, err = b.steadyRows(ctx, sides, p, beside)
			rows = append(rows, of...)
		}
		if e := end(); err == nil {
			err = e
		}
		if err != nil {
			return nil, fmt.Errorf("beside %s: %w", beside, err)
		}
	}
	return rows, nil
}

// costEntrant is a side, and the server whose processor time it takes.
type costEntrant struct {
	entrant
	server *peers.Server
}

func (b *Bench) costRows(
	ctx context.Context, sides []costEntrant, p record.CostParameters, beside string,
) (rows []record.CostRow, err error) {
	for round := range p.Rounds {
		for _, op := range []string{"GET", "SET"} {
			for _, conns := range p.Conns {
				row := record.CostRow{Round: round + 1, Beside: beside, Op: op, Conns: conns}
				if row.Sides, err = costRow(ctx, sides, p, row, round); err != nil {
					return nil, fmt.Errorf("%s at %d × 1: %w", op, conns, err)
				}
				var costs []string
				for _, e := range sides {
					costs = append(costs, fmt.Sprintf("%s %.1f", e.name, row.Sides[e.name].PerRequest()))
				}
				b.logf("round %d beside %s: %s %2d × 1, µs: %s", row.Round, beside, op, conns, strings.Join(costs, ", "))
				rows = append(rows, row)
			}
		}
	}
	return rows, nil
}

func costRow(
	ctx context.Context, sides []costEntrant, p record.CostParameters, row record.CostRow, round int,
) (map[string]record.CostSide, error) {
	var loads []*load.Load
	defer func() {
		for _, l := range loads {
			l.Close()
		}
	}()
	for _, e := range sides {
		l, err := load.Open(load.Config{
			Dial: e.dial, Protocol: e.by(shape{op: row.Op, conns: row.Conns, pipeline: 1}), Conns: row.Conns, Pipeline: 1,
			Batches: batches(p.Cycle, row.Conns, 1), Key: uniform(uint64(round), p.Keys),
		})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		loads = append(loads, l)
	}
	of := map[string]record.CostSide{}
	run := func(at int) error {
		name := sides[at].name
		side, err := costTurn(ctx, &sides[at], loads[at], time.Duration(p.TurnMS)*time.Millisecond)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sum := of[name]
		of[name] = record.CostSide{
			Requests: sum.Requests + side.Requests, Seconds: sum.Seconds + side.Seconds, CPU: sum.CPU + side.CPU,
		}
		return nil
	}
	for turn := range p.Turns.Turns {
		for i := range sides {
			if err := run((round + turn + i) % len(sides)); err != nil {
				return nil, err
			}
		}
	}
	for at, e := range sides { // a short turn may pass while the machine stands still
		for more := 0; of[e.name].Requests == 0 && more < moreTurns; more++ {
			if err := run(at); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range sides {
		if of[e.name].Requests == 0 {
			return nil, fmt.Errorf("%s answered nothing in %d turns of %d ms: make the turns longer",
				e.name, p.Turns.Turns, p.TurnMS)
		}
	}
	return of, nil
}

// costTurn measures one turn of a side.
func costTurn(ctx context.Context, e *costEntrant, l *load.Load, d time.Duration) (side record.CostSide, err error) {
	before, err := e.server.CPU()
	if err != nil {
		return side, err
	}
	r, err := l.Run(ctx, 0, d)
	if err != nil {
		return side, err
	}
	if r.Hits != r.Requests {
		return side, fmt.Errorf("%d of %d requests were hits, want all", r.Hits, r.Requests)
	}
	after, err := e.server.CPU()
	return record.CostSide{
		Requests: r.Requests, Seconds: r.Elapsed.Seconds(), CPU: (after - before).Seconds(),
	}, err
}

// steadyRows measures latencies at a steady rate.
func (b *Bench) steadyRows(
	ctx context.Context, sides []costEntrant, p record.CostParameters, beside string,
) (rows []record.CostRow, err error) {
	for _, conns := range p.Steady {
		for round := range p.Rounds {
			row := record.CostRow{Round: round + 1, Beside: beside, Op: "GET", Conns: conns, Rate: float64(p.Rate)}
			if row.Sides, err = steadyRow(ctx, sides, p, row, round); err != nil {
				return nil, fmt.Errorf("%d connections at %d requests/s: %w", conns, p.Rate, err)
			}
			var latencies []string
			for _, e := range sides {
				latencies = append(latencies, fmt.Sprintf("%s %.0f", e.name, row.Sides[e.name].P99))
			}
			b.logf("round %d beside %s: %2d connections at %d requests/s, p99 in µs: %s",
				row.Round, beside, conns, p.Rate, strings.Join(latencies, ", "))
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func steadyRow(
	ctx context.Context, sides []costEntrant, p record.CostParameters, row record.CostRow, round int,
) (map[string]record.CostSide, error) {
	of := map[string]record.CostSide{}
	took := time.Duration(p.SteadyMS) * time.Millisecond
	key := uniform(uint64(round), p.Keys)
	for i := range sides {
		e := sides[(round+i)%len(sides)]
		l, err := openOpenLoop(e.dial, e.by(shape{op: row.Op, conns: row.Conns, pipeline: 1}), row.Conns)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		before, err := e.server.CPU()
		if err != nil {
			return nil, errors.Join(err, l.close())
		}
		h, err := l.run(ctx, row.Rate, took, key)
		after, e2 := e.server.CPU()
		if err := errors.Join(err, e2, l.close()); err != nil {
			return nil, fmt.Errorf("%s: %w", e.name, err)
		}
		of[e.name] = record.CostSide{
			Requests: h.TotalCount(), Seconds: took.Seconds(), CPU: (after - before).Seconds(),
			P50: float64(h.ValueAtQuantile(50)) / 1000, P99: float64(h.ValueAtQuantile(99)) / 1000,
		}
	}
	return of, nil
}

// beside makes the machine busy until end is called, which returns an error if it has not been.
func (b *Bench) beside(ctx context.Context, what string) (end func() error) {
	ctx, cancel := context.WithCancel(ctx)
	var g errgroup.Group
	end = func() error { cancel(); return g.Wait() }
	again := func(name string, args ...string) { // ends with ctx
		g.Go(func() error {
			for ctx.Err() == nil {
				if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil && ctx.Err() == nil {
					return fmt.Errorf("%s %s: %w\n%s", name, args[0], err, out)
				}
			}
			return nil
		})
	}
	switch what {
	case record.Spinners:
		for range runtime.NumCPU() {
			again("sh", "-c", "while :; do :; done")
		}
	case record.Builds:
		again("go", "build", "-a", "-o", os.DevNull, "github.com/cachesidecar/cachesidecar/benchmarks/cmd/echo")
	}
	return end
}
