package measure

import (
	"context"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Propagation measures how long an overwritten value lives on in copies: of other hosts,
// and of clients that redis notifies of changes.
func (b *Bench) Propagation(ctx context.Context, p record.PropagationParameters) (rows []record.PropagationRow, err error) {
	if p.Rounds > 0 {
		if rows, err = b.streams(ctx, p); err != nil {
			return nil, err
		}
	}
	for round := range p.Hangs {
		row := record.PropagationRow{Part: record.Hang, Round: round + 1}
		if row.Hangs, err = b.hang(ctx, p); err != nil {
			return nil, fmt.Errorf("a link hangs: %w", err)
		}
		for name, h := range row.Hangs {
			b.logf("hang %d: %s: %d of %d reads brought the old value, the last after %.2f s; %d misses, %d errors", row.Round, name, h.Old, h.Reads, h.OldMS/1000, h.Misses, h.Errors)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// stream is a side: writers, and a watched key.
type stream interface {
	writers() pacers
	// probe overwrites a watched key. It returns, for each watcher, the delay from the
	// answer until the watcher saw the new value. A negative delay means before the
	// answer; noCopy means that the watcher had no copy.
	probe(n uint64) ([]time.Duration, error)
	// counts returns the sidecars' own counts.
	counts(ctx context.Context) (record.StreamSide, error)
	close()
}

// noCopy stands for the delay of a host that had nothing to invalidate.
const noCopy = time.Duration(-1 << 62)

func (b *Bench) streams(ctx context.Context, p record.PropagationParameters) (rows []record.PropagationRow, err error) {
	sides := map[string]stream{}
	defer func() {
		for _, s := range sides {
			s.close()
		}
	}()
	if sides[record.Sidecar], err = b.openSidecars(ctx, p); err != nil {
		delete(sides, record.Sidecar)
		return nil, err
	}
	if sides[record.Redis], err = b.openTracked(ctx, p); err != nil {
		delete(sides, record.Redis)
		return nil, err
	}
	if sides[record.Fanout], err = b.openFanout(ctx, p); err != nil {
		delete(sides, record.Fanout)
		return nil, err
	}
	names := []string{record.Sidecar, record.Redis, record.Fanout}
	for round := range p.Rounds {
		for _, rate := range []int{p.Rate / 10, p.Rate, 10 * p.Rate} {
			row := record.PropagationRow{Part: record.Stream, Round: round + 1, Rate: rate, Streams: map[string]record.StreamSide{}}
			for i := range names {
				name := names[(round+i)%len(names)]
				if row.Streams[name], err = b.stream(ctx, p, sides[name], rate); err != nil {
					return nil, fmt.Errorf("%s, %d writes a second: %w", name, rate, err)
				}
				s := row.Streams[name]
				b.logf("round %d: %6d writes/s (%6.0f made): %-7s p50 %.2f ms, p99 %.2f; to all p50 %.2f, p99 %.2f, max %.2f; %d pairs, %d early, %d had no copy; %d gaps, %d resets",
					row.Round, rate, s.PerSecond(), name, at(s.PairUS, 50)/1000, at(s.PairUS, 99)/1000, at(s.AllUS, 50)/1000, at(s.AllUS, 99)/1000, at(s.AllUS, 100)/1000, s.Pairs, s.Early, s.NoCopy, s.Gaps, s.Resets)
			}
			rows = append(rows, row)
		}
	}
	return rows, nil
}

func at(us []float64, percentile float64) float64 {
	return record.Side{LatencyUS: us}.At(percentile)
}

// settle is how long writes go on before the first probe.
const settle = 200 * time.Millisecond

// stream overwrites watched keys while other keys are overwritten at a rate.
func (b *Bench) stream(ctx context.Context, p record.PropagationParameters, s stream, rate int) (side record.StreamSide, err error) {
	before, err := s.counts(ctx)
	if err != nil {
		return side, err
	}
	seconds := p.Short
	if rate == p.Rate {
		seconds = p.Seconds
	}
	stop := s.writers().start(ctx, rate)
	t := tally{pair: newDelays(), all: newDelays()}
	time.Sleep(settle)
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
	if err != nil {
		return side, err
	}
	if werr != nil {
		return side, werr
	}
	if t.pair.TotalCount() == 0 {
		return side, fmt.Errorf("none of %d overwrites found a copy", t.probes)
	}
	if side, err = s.counts(ctx); err != nil {
		return side, err
	}
	side.Gaps, side.Resets, side.Missed = side.Gaps-before.Gaps, side.Resets-before.Resets, side.Missed-before.Missed
	side.Writes, side.Seconds, side.Probes = writes, took, t.probes
	side.Pairs, side.NoCopy, side.Early = t.pair.TotalCount(), t.noCopy, t.early
	for _, q := range record.Percentiles {
		side.PairUS = append(side.PairUS, float64(t.pair.ValueAtQuantile(q))/1000)
		side.AllUS = append(side.AllUS, float64(t.all.ValueAtQuantile(q))/1000)
	}
	return side, nil
}

// tally collects delays, in ns.
type tally struct {
	pair, all             *hdrhistogram.Histogram
	probes, noCopy, early int64
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
