package measure

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Propagation measures how long an overwritten value lives on in copies: of other hosts,
// and of clients that redis notifies of changes.
func (b *Bench) Propagation(ctx context.Context, p record.Parameters) {
	if p.Rounds > 0 {
		b.streams(ctx, p)
	}
	for range p.Hangs {
		within("a link hangs", func() { b.hang(ctx, p) })
	}
}

// stream is a side: writers, and a watched key.
type stream interface {
	writers() pacers
	// probe overwrites a watched key. It returns, for each watcher, the delay from the
	// answer until the watcher saw the new value. A negative delay means before the
	// answer; noCopy means that the watcher had no copy.
	probe(n uint64) ([]time.Duration, error)
}

// noCopy stands for the delay of a host that had nothing to invalidate.
const noCopy = time.Duration(-1 << 62)

func (b *Bench) streams(ctx context.Context, p record.Parameters) {
	defer b.scope()()
	b.takeTurns(ctx, p, []namedStream{{record.Sidecar, b.openSidecars(ctx, p, b.options(p, ""))}, {record.Tracking, b.openTracked(ctx, p)}, {record.BareFanout, b.openFanout(ctx, p)}},
		p.Rate/10, p.Rate, 10*p.Rate)
}

// namedStream is a side with its name.
type namedStream struct {
	name string
	stream
}

// takeTurns measures all sides at each rate, in each round.
func (b *Bench) takeTurns(ctx context.Context, p record.Parameters, sides []namedStream, rates ...int) {
	for round := range p.Rounds {
		for _, rate := range rates {
			for _, s := range rotated(sides, round) {
				b.stream(ctx, p, s.name, s.stream, rate)
			}
		}
	}
}

// settle is how long writes go on before the first probe.
const settle = 200 * time.Millisecond

// stream overwrites watched keys while other keys are overwritten at a rate.
func (b *Bench) stream(ctx context.Context, p record.Parameters, side string, s stream, rate int) {
	alarms, counted := s.(*sidecars)
	t := &tally{pair: newDelays(), all: newDelays()}
	if counted {
		alarms.count(ctx, t, -1)
	}
	seconds := p.Short
	if rate == p.Rate {
		seconds = p.Seconds
	}
	stop := s.writers().start(ctx, rate)
	time.Sleep(settle)
	var err error
	for begun := time.Now(); err == nil && time.Since(begun) < time.Duration(seconds)*time.Second; t.probes++ {
		var delays []time.Duration
		if err = ctx.Err(); err == nil {
			delays, err = s.probe(uint64(t.probes))
		}
		t.add(delays)
		next := begun.Add(time.Duration(t.probes+1) * time.Duration(p.EveryMS) * time.Millisecond)
		time.Sleep(time.Until(next))
	}
	writes, took, werr := stop()
	if err := cmp.Or(err, werr); err != nil {
		fail("%s, %d writes a second: %w", side, rate, err)
	}
	if t.pair.TotalCount() == 0 {
		fail("%s: none of %d overwrites found a copy", side, t.probes)
	}
	t.made = float64(writes) / took
	if counted {
		alarms.count(ctx, t, 1)
	}
	b.put(fmt.Sprintf("%s invalidations/s, %d hosts", record.Commas(rate), p.Hosts), side, t.figures()...)
}

// tally is what the overwrites of watched keys come to. Delays are in ns, and count from the answer to the writer.
type tally struct {
	made                  float64                 // writes a second
	pair, all             *hdrhistogram.Histogram // of each watcher of each probe, and of the last one
	probes, noCopy, early int64                   // early: before the writer was answered; they count as 0
	alarms                []figure                // of all sidecars
}

func newDelays() *hdrhistogram.Histogram { return hdrhistogram.New(1000, int64(time.Minute), 3) }

func (t *tally) add(delays []time.Duration) {
	last, some := time.Duration(0), false
	for _, d := range delays {
		if d == noCopy {
			t.noCopy++
			continue
		}
		if d < 0 {
			t.early++
			d = 0
		}
		some, last = true, max(last, d)
		_ = t.pair.RecordValue(int64(d)) // fails only above one minute
	}
	if some {
		_ = t.all.RecordValue(int64(last))
	}
}

func (t *tally) figures() []figure {
	pairs := float64(t.pair.TotalCount())
	percent := func(n int64) float64 { return 100 * float64(n) / (pairs + float64(t.noCopy)) }
	list := append([]figure{{"made/s", t.made}}, percentiles("one host, ", "ms", t.pair)...)
	list = append(list, percentiles("all hosts, ", "ms", t.all)...)
	list = append(list, figure{"probes", float64(t.probes)}, figure{"pairs", pairs}, figure{"no copy, %", percent(t.noCopy)}, figure{"early, %", percent(t.early)})
	return append(list, t.alarms...)
}
