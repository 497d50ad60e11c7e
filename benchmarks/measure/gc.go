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
func (b *Bench) GC(ctx context.Context, p record.Parameters) error {
	few, err := b.holding(ctx, p, p.Few)
	if err != nil {
		return err
	}
	defer few.Stop()
	many, err := b.holding(ctx, p, p.Keys)
	if err != nil {
		return err
	}
	defer many.Stop()
	shape := record.Commas(p.Keys) + " entries resident"
	for round := range p.Rounds {
		if err := churn(ctx, many, p.Churn); err != nil {
			return err
		}
		if err := b.reads(ctx, few, many, p, round, shape); err != nil {
			return err
		}
		st, err := many.Stats(ctx)
		if err != nil {
			return err
		}
		if st.L2.Entries != int64(p.Keys) {
			return fmt.Errorf("the sidecar holds %d entries of %d set: give more bytes", st.L2.Entries, p.Keys)
		}
		b.put(shape, record.Sidecar, figure{"collector's share of CPU, %", 100 * st.Process.GCCPUShare}, figure{"longest pause, ms", float64(st.Process.GCPauseMaxUS) / 1000},
			figure{"collections", float64(st.Process.GCRuns)}, figure{"heap, MiB", float64(st.Process.HeapBytes) / (1 << 20)})
	}
	return nil
}

// holding starts a sidecar with the given number of entries.
func (b *Bench) holding(ctx context.Context, p record.Parameters, entries int) (*peers.Server, error) {
	s, err := b.start(ctx, record.Sidecar, b.options(p, fmt.Sprint("-", entries)))
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
func (b *Bench) reads(ctx context.Context, few, many *peers.Server, p record.Parameters, round int, shape string) error {
	c := &contest{}
	defer c.close()
	for _, side := range []struct {
		s          *peers.Server
		with, keys int
	}{{few, p.Few, p.Few}, {many, p.Keys, p.Keys}, {many, p.Keys, p.Few}} {
		err := c.enter(fmt.Sprintf("%s entries, GETs of %s keys", record.Commas(side.with), record.Commas(side.keys)), load.Config{
			Dial: side.s.Dial, Protocol: side.s.Get, Conns: p.Conns, Pipeline: p.Pipeline,
			Batches: batches(p.Cycle, p.Conns, p.Pipeline), Key: uniform(uint64(round), side.keys),
		})
		if err != nil {
			return err
		}
	}
	_, err := b.play(ctx, c, &p, round, shape)
	return err
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
