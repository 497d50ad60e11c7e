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
func (b *Bench) GC(ctx context.Context, p record.Parameters) {
	few, many := b.holding(ctx, p, p.Few), b.holding(ctx, p, p.Keys)
	shape := record.Commas(p.Keys) + " entries resident"
	for round := range p.Rounds {
		within("connections that come and go", func() { b.churn(ctx, many, p.Churn) })
		b.reads(ctx, few, many, p, round, shape)
		st := must(many.Stats(ctx))
		if st.L2.Entries != int64(p.Keys) {
			fail("the sidecar holds %d entries of %d set: give more bytes", st.L2.Entries, p.Keys)
		}
		b.put(shape, record.Sidecar, figure{"collector's share of CPU, %", 100 * st.Process.GCCPUShare}, figure{"longest pause, ms", float64(st.Process.GCPauseMaxUS) / 1000},
			figure{"collections", float64(st.Process.GCRuns)}, figure{"heap, MiB", float64(st.Process.HeapBytes) / (1 << 20)})
	}
}

// holding starts a sidecar with the given number of entries.
func (b *Bench) holding(ctx context.Context, p record.Parameters, entries int) *peers.Server {
	s := b.start(ctx, record.Sidecar, b.options(p, fmt.Sprint("-", entries)))
	b.logf("%d entries set in %.1f s", entries, fill(ctx, s, entries).Seconds())
	return s
}

// reads compares GETs of all keys of both sidecars, and of few keys of the sidecar with
// many. The latter show the cost of the entries' presence. The difference between the
// others shows the cost of entries that are not in the processor's caches.
func (b *Bench) reads(ctx context.Context, few, many *peers.Server, p record.Parameters, round int, shape string) {
	c := &contest{}
	defer c.close()
	for _, side := range []struct {
		s          *peers.Server
		with, keys int
	}{{few, p.Few, p.Few}, {many, p.Keys, p.Keys}, {many, p.Keys, p.Few}} {
		c.enter(fmt.Sprintf("%s entries, GETs of %s keys", record.Commas(side.with), record.Commas(side.keys)), load.Config{
			Dial: side.s.Dial, Protocol: side.s.Get, Conns: p.Conns, Pipeline: p.Pipeline,
			Batches: batches(p.Cycle, p.Conns, p.Pipeline), Key: uniform(uint64(round), side.keys),
		})
	}
	b.play(ctx, c, &p, round, shape)
}

// churn makes connections that send one request each, many at a time.
func (b *Bench) churn(ctx context.Context, s *peers.Server, conns int) {
	const atOnce = 500
	buf := make([]byte, replyBuffer)
	for done := 0; done < conns; done += atOnce {
		end := b.scope()
		b.hold(ctx, s, min(atOnce, conns-done), buf)
		end()
	}
}
