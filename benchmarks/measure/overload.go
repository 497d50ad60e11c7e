package measure

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/surge"
)

// overload is one kind of load that is offered at any rate.
type overload struct {
	kind  string
	least float64 // the search for saturation begins at this rate
	load  func(round int) surge.Config
	steps int           // the time of a step is so many times the usual one
	drain time.Duration // after a phase, until nothing of it is left
}

// Overload finds the rate that saturates one sidecar, for each kind of load, and measures
// below and above it. The sidecar has one processor, and the load with its origin has
// another.
func (b *Bench) Overload(ctx context.Context, p record.OverloadParameters, kinds []string) (rows []record.OverloadRow, err error) {
	all, err := surge.Processors()
	if err != nil {
		return nil, err
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("overload: this process may use %d processor, want 2: one for the sidecar, one for the load", len(all))
	}
	defer surge.Pin(all...)
	for _, kind := range kinds {
		if err := surge.Pin(all...); err != nil {
			return nil, err
		}
		measure := b.overloads
		if kind == record.Metrics {
			measure = b.scrapes
		}
		more, err := measure(ctx, p, kind, all)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", kind, err)
		}
		rows = append(rows, more...)
	}
	return rows, nil
}

// overloads measures one kind, with a sidecar of its own.
func (b *Bench) overloads(ctx context.Context, p record.OverloadParameters, kind string, on []int) (rows []record.OverloadRow, err error) {
	if err := surge.Pin(on[0]); err != nil {
		return nil, err
	}
	origin, err := peers.StartOriginOf(p.OriginPlaces, time.Duration(p.OriginMS)*time.Millisecond, make([]byte, p.ValueSize))
	if err != nil {
		return nil, err
	}
	defer origin.Down()
	o := peers.Options{Label: "-" + kind, Dir: b.dir, Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize}
	o.Config = filepath.Join(b.dir, "overload.yaml")
	text := fmt.Sprintf("namespaces:\n  %s:\n    default_ttl: 1s\n    origin: {http: {url: %q}}\n    limits: {concurrency: %d}\n",
		loadedSpace, origin.URL(), p.OriginPlaces)
	if err := os.WriteFile(o.Config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	s, err := b.start(ctx, record.Sidecar, o)
	if err != nil {
		return nil, err
	}
	defer s.Stop()
	if err := surge.Pin(on[1]); err != nil {
		return nil, err
	}
	if _, err := fill(ctx, s, p.Keys); err != nil {
		return nil, err
	}
	l := overloadOf(kind, s.Socket, p)
	rate, err := b.saturation(ctx, l, p)
	if err != nil {
		return nil, err
	}
	for round := range p.Rounds {
		row, err := b.overloadRound(ctx, s, l, p, rate, round)
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// overloadOf returns the load of one kind.
func overloadOf(kind, socket string, p record.OverloadParameters) overload {
	timeout := time.Duration(p.TimeoutMS[kind]) * time.Millisecond
	value := func(n int) []byte { return bytes.Repeat([]byte("v"), n) }
	l := overload{kind: kind, steps: 1, drain: timeout}
	c := surge.Config{Socket: socket, Timeout: timeout, Conns: p.Conns}
	first := uint64(0) // key of the misses
	switch kind {
	case record.Requests:
		l.least = 200_000
		c.Requests = surge.Mix(1<<14, 10, p.Keys, p.KeySize, value(p.ValueSize))
	case record.Connections:
		l.least, c.Conns = 400, 0
		l.steps = 5                       // the first connections begin at once
		l.drain = 2500 * time.Millisecond // those that wait are swept after a second
		c.Requests = surge.Mix(1<<10, math.MaxInt, p.Keys, p.KeySize, nil)
	case record.Large:
		l.least, c.Window = 400, 1
		c.Requests = surge.Mix(p.Conns, 2, p.Conns, p.KeySize+1, value(p.LargeSize))
	case record.Misses:
		l.least, c.Namespace = 400, loadedSpace
	}
	l.load = func(round int) surge.Config {
		c.Seed = uint64(round)
		if kind == record.Misses {
			c.Requests = surge.Misses{KeySize: p.KeySize, First: first}
			first += 1 << 32
		}
		return c
	}
	return l
}

// saturation returns the greatest rate that is served as a whole, while the rate rises.
// A machine that is disturbed may fail at the first rates: then it begins at half of them.
func (b *Bench) saturation(ctx context.Context, l overload, p record.OverloadParameters) (best float64, err error) {
	const tries = 4
	for range tries {
		if best, err = b.rise(ctx, l, p); best > 0 || err != nil {
			return best, err
		}
		l.least /= 2
	}
	return 0, fmt.Errorf("%.0f requests a second are too many already", l.least)
}

// rise raises the rate until it is too much.
func (b *Bench) rise(ctx context.Context, l overload, p record.OverloadParameters) (best float64, err error) {
	const up, whole, beyond = 1.25, 0.95, 3 // so often in a row not served as a whole
	for rate, less := l.least, 0; less < beyond; rate *= up {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		c := l.load(0)
		step := time.Duration(p.StepMS*l.steps) * time.Millisecond
		c.Rate, c.WarmUp, c.Duration = rate, step/2, step
		r, err := surge.Run(c)
		if err != nil {
			return 0, err
		}
		b.logf("  %s: %.0f/s offered: %.0f/s served, p99 %.2f ms, %d busy, %d late, %d held back", l.kind, rate, r.PerSecond(),
			float64(r.Serve.ValueAtQuantile(99))/1e6, r.Busy, r.Late, r.Held)
		if float64(r.Served) < whole*float64(r.Due) {
			less++
		} else {
			less, best = 0, r.PerSecond()
		}
		time.Sleep(min(l.drain, 2*step, time.Second/2))
	}
	return best, nil
}

// overloadRound measures one round.
func (b *Bench) overloadRound(ctx context.Context, s *peers.Server, l overload, p record.OverloadParameters, rate float64, round int) (row record.OverloadRow, err error) {
	row = record.OverloadRow{Kind: l.kind, Round: round + 1, Rate: rate, Phases: map[string]record.OverloadPhase{}}
	for _, phase := range []struct {
		name string
		of   float64
	}{{record.Near, 0.9}, {record.Near, 1.1}, {record.Calm, 0.8}, {record.Over, 3}} {
		c := l.load(round)
		c.Rate = rate * phase.of
		c.WarmUp, c.Duration = time.Duration(p.WarmUpMS)*time.Millisecond, time.Duration(p.PhaseMS)*time.Millisecond
		watch := s.Watch(ctx)
		r, err := surge.Run(c)
		most, werr := watch()
		if err != nil {
			return row, fmt.Errorf("at %.0f requests a second: %w", c.Rate, err)
		}
		if werr != nil {
			return row, werr
		}
		f := figures(r, c.Rate, most)
		if r.Failure != "" {
			b.logf("  %d answers are neither useful nor BUSY; the first: %s", r.Failed, r.Failure)
		}
		if f.PerSecond() >= row.Phases[phase.name].PerSecond() || math.IsNaN(row.Phases[phase.name].PerSecond()) {
			row.Phases[phase.name] = f
		}
		b.logf("  round %d: %s at %.1f × saturation: %.0f/s served, p50 %.2f ms, p99 %.2f ms; %.0f %% of answers BUSY, p99 %.2f ms; "+
			"%.0f %% held back, %d late; lag p99 %.2f ms; %.0f MiB, %d goroutines, %d descriptors", row.Round, l.kind, phase.of, r.PerSecond(),
			float64(r.Serve.ValueAtQuantile(50))/1e6, float64(r.Serve.ValueAtQuantile(99))/1e6, 100*r.BusyShare(),
			float64(r.Refuse.ValueAtQuantile(99))/1e6, 100*float64(r.Held)/float64(r.Due), r.Late, float64(r.Lag.ValueAtQuantile(99))/1e6,
			float64(most.Resident)/(1<<20), most.Goroutines, most.Descriptors)
		time.Sleep(l.drain)
	}
	row.Rest, err = s.Holds(ctx)
	return row, err
}

// figures returns a phase's figures.
func figures(r *surge.Result, rate float64, most record.Held) record.OverloadPhase {
	us := func(h *hdrhistogram.Histogram) (list []float64) {
		for _, q := range record.Percentiles {
			list = append(list, float64(h.ValueAtQuantile(q))/1000)
		}
		return list
	}
	return record.OverloadPhase{
		Rate: rate, Seconds: r.Elapsed.Seconds(), Due: r.Due, Held: r.Held, Served: r.Served, Busy: r.Busy, Late: r.Late,
		Failed: r.Failed, ServeUS: us(r.Serve), BusyUS: us(r.Refuse), LagUS: us(r.Lag), Most: most,
	}
}
