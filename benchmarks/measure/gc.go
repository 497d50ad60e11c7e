package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/load"
)

// GC measures the cost of many entries for the garbage collector and for the slowest
// reads. A sidecar with many entries takes turns with a sidecar with few. Before each
// round connections come and go at the former, because nothing else makes garbage there.
func (b *Bench) GC(ctx context.Context, p record.GCParameters) (rows []record.GCRow, err error) {
	o := peers.Options{Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize}
	few, err := b.holding(ctx, o, p.Few)
	if err != nil {
		return nil, err
	}
	defer few.Stop()
	many, err := b.holding(ctx, o, p.Keys)
	if err != nil {
		return nil, err
	}
	defer many.Stop()
	for round := range p.Rounds {
		row := record.GCRow{Round: round + 1}
		if err := churn(ctx, many, p.Churn); err != nil {
			return nil, err
		}
		if row.Sides, err = b.reads(ctx, few, many, p, round); err != nil {
			return nil, err
		}
		st, err := many.Stats(ctx)
		if err != nil {
			return nil, err
		}
		if st.L2.Entries != int64(p.Keys) {
			return nil, fmt.Errorf("the sidecar holds %d entries of %d set: give more bytes", st.L2.Entries, p.Keys)
		}
		row.Entries = st.L2.Entries
		row.Runs, row.CPUShare, row.PauseUS, row.Heap = st.Process.GCRuns, st.Process.GCCPUShare, st.Process.GCPauseMaxUS, st.Process.HeapBytes
		rows = append(rows, row)
		b.logf("round %d: p99 %.0f µs with few entries, %.0f with many, %.0f for a few of many; %d collections, %.2f %% of CPU, longest pause %d µs", row.Round,
			row.Sides[record.Few].At(99), row.Sides[record.All].At(99), row.Sides[record.Hot].At(99), row.Runs, 100*row.CPUShare, row.PauseUS)
	}
	return rows, nil
}

// holding starts a sidecar with the given number of entries.
func (b *Bench) holding(ctx context.Context, o peers.Options, entries int) (*peers.Server, error) {
	o.Label = fmt.Sprint("-", entries)
	s, err := b.start(ctx, record.Sidecar, o)
	if err != nil {
		return nil, err
	}
	took, err := fill(ctx, s, entries)
	if err != nil {
		s.Stop()
		return nil, err
	}
	b.logf("%d entries set in %.1f s", entries, took.Seconds())
	return s, nil
}

// reads compares GETs of all keys of both sidecars, and of few keys of the sidecar with
// many. The latter show the cost of the entries' presence. The difference between the
// others shows the cost of entries that are not in the processor's caches.
func (b *Bench) reads(ctx context.Context, few, many *peers.Server, p record.GCParameters, round int) (map[string]record.Side, error) {
	c := &contest{}
	defer c.close()
	for _, side := range []struct {
		name string
		s    *peers.Server
		keys int
	}{{record.Few, few, p.Few}, {record.All, many, p.Keys}, {record.Hot, many, p.Few}} {
		err := c.enter(side.name, load.Config{
			Dial: side.s.Dial, Protocol: side.s.Get, Conns: p.Conns, Pipeline: p.Pipeline,
			Batches: batches(p.Cycle, p.Conns, p.Pipeline), Key: uniform(uint64(round), side.keys),
		})
		if err != nil {
			return nil, err
		}
	}
	return c.play(ctx, p.Turns, round)
}

// churn makes connections that send one request each, many at a time.
func churn(ctx context.Context, s *peers.Server, conns int) error {
	const atOnce = 500
	buf := make([]byte, replyBuffer)
	for done := 0; done < conns; done += atOnce {
		h, err := hold(ctx, s, min(atOnce, conns-done), buf)
		h.close()
		if err != nil {
			return fmt.Errorf("connections that come and go: %w", err)
		}
	}
	return nil
}
