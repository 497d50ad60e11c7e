package measure

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/surge"
)

// overload is one kind of load that is offered at any rate.
type overload struct {
	kind  string  // as the page calls it
	least float64 // the search for saturation begins at this rate
	load  func(round int) surge.Config
	steps int           // the time of a step is so many times the usual one
	drain time.Duration // after a phase, until nothing of it is left
}

// Kinds of overload, by the flag's name for them; metrics are no overload, but hits while metrics are asked for.
const (
	requests    = "requests"
	connections = "connections"
	large       = "large"
	misses      = "misses"
	metrics     = "metrics"
)

// OverloadKinds are all kinds, in the order of the page.
var OverloadKinds = []string{requests, connections, large, misses, metrics}

// Overload finds the rate that saturates one sidecar, for each kind of load, and measures
// below and above it. The sidecar has one processor, and the load with its origin has
// another.
func (b *Bench) Overload(ctx context.Context, p record.Parameters) {
	all := must(surge.Processors())
	if len(all) < 2 {
		fail("overload: this process may use %d processor, want 2: one for the sidecar, one for the load", len(all))
	}
	defer surge.Pin(all...)
	for _, kind := range strings.Split(p.Kinds, ",") {
		check(surge.Pin(all...))
		within(kind, func() {
			if kind == metrics {
				b.scrapes(ctx, p)
			} else {
				b.overload(ctx, p, kind, all)
			}
		})
	}
}

// overload measures one kind, with a sidecar of its own.
func (b *Bench) overload(ctx context.Context, p record.Parameters, kind string, on []int) {
	defer b.scope()()
	check(surge.Pin(on[0]))
	origin := b.startOrigin(p, p.OriginPlaces, time.Duration(p.OriginMS)*time.Millisecond)
	o := b.options(p, "-"+kind)
	o.Config = b.config(origin, fmt.Sprintf("    default_ttl: 1s\n    limits: {concurrency: %d}\n", p.OriginPlaces))
	s := b.start(ctx, record.Sidecar, o)
	check(surge.Pin(on[1]))
	fill(ctx, s, p.Keys)
	l := overloadOf(kind, s.Socket, p)
	rate := b.saturation(ctx, l, p)
	for round := range p.Rounds {
		b.overloadRound(ctx, s, l, p, rate, round)
	}
}

// overloadOf returns the load of one kind.
func overloadOf(kind, socket string, p record.Parameters) overload {
	timeout := time.Duration(p.TimeoutMS[kind]) * time.Millisecond
	l := overload{kind: kind, steps: 1, drain: timeout}
	c := surge.Config{Socket: socket, Timeout: timeout, Conns: p.Conns}
	first := uint64(0) // key of the misses
	switch kind {
	case requests:
		l.kind = "small requests"
		l.least = 200_000
		c.Requests = surge.Mix(1<<14, 10, p.Keys, p.KeySize, value(p.ValueSize))
	case connections:
		l.least, c.Conns = 400, 0
		l.steps = 5                       // the first connections begin at once
		l.drain = 2500 * time.Millisecond // those that wait are swept after a second
		c.Requests = surge.Mix(1<<10, math.MaxInt, p.Keys, p.KeySize, nil)
	case large:
		l.kind = "large values"
		l.least, c.Window = 400, 1
		c.Requests = surge.Mix(p.Conns, 2, p.Conns, p.KeySize+1, value(p.LargeSize))
	case misses:
		l.kind = "loads"
		l.least, c.Namespace = 400, loadedSpace
	}
	l.load = func(round int) surge.Config {
		c.Seed = uint64(round)
		if kind == misses {
			c.Requests = surge.Misses{KeySize: p.KeySize, First: first}
			first += 1 << 32
		}
		return c
	}
	return l
}

// saturation returns the greatest rate that is served as a whole, while the rate rises.
// A machine that is disturbed may fail at the first rates: then it begins at half of them.
func (b *Bench) saturation(ctx context.Context, l overload, p record.Parameters) (best float64) {
	const tries = 4
	for range tries {
		if best = b.rise(ctx, l, p); best > 0 {
			return best
		}
		l.least /= 2
	}
	fail("%.0f requests a second are too many already", l.least)
	return 0
}

// rise raises the rate until it is too much.
func (b *Bench) rise(ctx context.Context, l overload, p record.Parameters) (best float64) {
	const up, whole, beyond = 1.25, 0.95, 3 // so often in a row not served as a whole
	for rate, less := l.least, 0; less < beyond; rate *= up {
		check(ctx.Err())
		c := l.load(0)
		step := time.Duration(p.StepMS*l.steps) * time.Millisecond
		c.Rate, c.WarmUp, c.Duration = rate, step/2, step
		r := must(surge.Run(c))
		b.logf("  %s: %.0f/s offered: %.0f/s served, p99 %.2f ms, %d busy, %d late, %d held back", l.kind, rate, r.PerSecond(),
			float64(r.Serve.ValueAtQuantile(99))/1e6, r.Busy, r.Late, r.Held)
		if float64(r.Served) < whole*float64(r.Due) {
			less++
		} else {
			less, best = 0, r.PerSecond()
		}
		time.Sleep(min(l.drain, 2*step, time.Second/2))
	}
	return best
}

// overloadRound measures one round. Near saturation the rate with the greater goodput counts.
func (b *Bench) overloadRound(ctx context.Context, s *peers.Server, l overload, p record.Parameters, rate float64, round int) {
	b.put(l.kind, "", figure{"saturation/s", rate})
	var near []figure
	best := -1.0
	for _, of := range []float64{0.9, 1.1, 0.8, 3} {
		c := l.load(round)
		c.Rate = rate * of
		c.WarmUp, c.Duration = time.Duration(p.WarmUpMS)*time.Millisecond, time.Duration(p.PhaseMS)*time.Millisecond
		watch := s.Watch(ctx)
		r, err := surge.Run(c)
		most, werr := watch()
		if err := cmp.Or(err, werr); err != nil {
			fail("at %.0f requests a second: %w", c.Rate, err)
		}
		if r.Failure != "" {
			b.logf("  %d answers are neither useful nor BUSY; the first: %s", r.Failed, r.Failure)
		}
		switch list := outcomes(r, c.Rate, most); of {
		case 0.9, 1.1:
			if r.PerSecond() >= best {
				near, best = list, r.PerSecond()
			}
		case 0.8:
			b.put(l.kind, record.Calm, list...)
			b.put(l.kind, record.Near, near...)
		default:
			b.put(l.kind, record.Over, list...)
		}
		time.Sleep(l.drain)
	}
	b.put(l.kind+", a moment later", "", holdings(must(s.Holds(ctx)))...)
}

// outcomes returns the figures of one load.
func outcomes(r *surge.Result, rate float64, most peers.Held) []figure {
	percent := func(n int64) float64 { return 100 * float64(n) / float64(max(1, r.Due)) }
	list := append([]figure{{"offered/s", rate}, {"served/s", r.PerSecond()}}, percentiles("", "ms", r.Serve)...)
	list = append(list, figure{"BUSY %", percent(r.Busy)}, figure{"late %", percent(r.Late)}, figure{"held back %", percent(r.Held)}, figure{"failed %", percent(r.Failed)})
	if r.Busy > 0 {
		list = append(list, percentiles("BUSY ", "ms", r.Refuse)...)
	}
	return append(append(list, percentiles("lag ", "ms", r.Lag)...), holdings(most)...)
}

// holdings returns the figures of what a process holds.
func holdings(h peers.Held) []figure {
	return []figure{{"MiB", float64(h.Resident) / (1 << 20)}, {"goroutines", float64(h.Goroutines)}, {"descriptors", float64(h.Descriptors)}}
}

// value returns a value of so many bytes.
func value(n int) []byte { return bytes.Repeat([]byte("v"), n) }
