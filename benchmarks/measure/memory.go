package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Memory measures the memory of a filled sidecar and a filled memcached. Each round has
// new processes.
func (b *Bench) Memory(ctx context.Context, p record.Parameters) {
	names := []string{record.Sidecar, record.Memcached}
	for round := range p.Rounds {
		for _, name := range rotated(names, round) {
			within(name, func() { b.filled(ctx, name, p) })
		}
	}
}

// filled fills a server.
func (b *Bench) filled(ctx context.Context, name string, p record.Parameters) {
	defer b.scope()()
	s := b.start(ctx, name, b.options(p, ""))
	empty := must(s.Settled(ctx))
	took := fill(ctx, s, p.Keys)
	resident := must(s.Settled(ctx))
	entries, evicted, err := s.Count(ctx)
	if check(err); entries != int64(p.Keys) || evicted != 0 {
		fail("it holds %d entries of %d set and has evicted %d: the comparison is of servers that evict nothing; give more bytes", entries, p.Keys, evicted)
	}
	shape := fmt.Sprintf("%s entries of %d + %d B", record.Commas(p.Keys), p.KeySize, p.ValueSize)
	beyond := float64(resident-int64(p.Keys)*int64(p.KeySize+p.ValueSize)) / float64(p.Keys)
	b.put(shape, name, figure{"empty, MiB", float64(empty) / (1 << 20)}, figure{"filled, MiB", float64(resident) / (1 << 20)}, figure{"entries", float64(entries)},
		figure{"evicted", float64(evicted)}, figure{"filled in s", took.Seconds()}, figure{"resident beyond keys and values, B an entry", beyond})
	if name == record.Sidecar {
		b.overhead(ctx, s, p, shape)
	}
}

// overhead keeps the sidecar's account of its memory.
func (b *Bench) overhead(ctx context.Context, s *peers.Server, p record.Parameters, shape string) {
	st := must(s.Stats(ctx))
	m := st.L2.Memory
	b.put(shape, record.Sidecar, figure{"overhead by its own account, B an entry", float64(m.Used-m.Payload) / float64(p.Keys)})
	for _, part := range []struct {
		name  string
		bytes int64
	}{
		{"entry headers", m.Headers}, {"alignment", m.Alignment}, {"index", m.Index}, {"ghosts", m.Ghosts},
		{"open segments, not yet written", m.Open}, {"ends of segments", m.Tails}, {"dead entries", m.Dead}, {"queues of quotas", m.Quotas},
		{"together", m.Used - m.Payload},
	} {
		b.put("overhead by part", part.name, figure{"B an entry", float64(part.bytes) / float64(p.Keys)})
	}
}
