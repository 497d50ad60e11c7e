package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Memory measures the memory of a filled sidecar and a filled memcached. Each round has
// new processes.
func (b *Bench) Memory(ctx context.Context, p record.Parameters) error {
	names := []string{record.Sidecar, record.Memcached}
	for round := range p.Rounds {
		for i := range names {
			name := names[(round+i)%len(names)]
			if err := b.filled(ctx, name, p); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return nil
}

// filled fills a server.
func (b *Bench) filled(ctx context.Context, name string, p record.Parameters) error {
	s, err := b.start(ctx, name, b.options(p, ""))
	if err != nil {
		return err
	}
	defer s.Stop()
	empty, err := s.Settled(ctx)
	if err != nil {
		return err
	}
	took, err := fill(ctx, s, p.Keys)
	if err != nil {
		return err
	}
	resident, err := s.Settled(ctx)
	if err != nil {
		return err
	}
	entries, evicted, err := s.Count(ctx)
	if err != nil {
		return err
	}
	if entries != int64(p.Keys) || evicted != 0 {
		return fmt.Errorf("it holds %d entries of %d set and has evicted %d: the comparison is of servers that evict nothing; give more bytes", entries, p.Keys, evicted)
	}
	shape := fmt.Sprintf("%s entries of %d + %d B", record.Commas(p.Keys), p.KeySize, p.ValueSize)
	beyond := float64(resident-int64(p.Keys)*int64(p.KeySize+p.ValueSize)) / float64(p.Keys)
	b.put(shape, name, figure{"empty, MiB", float64(empty) / (1 << 20)}, figure{"filled, MiB", float64(resident) / (1 << 20)}, figure{"entries", float64(entries)},
		figure{"evicted", float64(evicted)}, figure{"filled in s", took.Seconds()}, figure{"resident beyond keys and values, B an entry", beyond})
	if name != record.Sidecar {
		return nil
	}
	return b.overhead(ctx, s, p, shape)
}

// overhead keeps the sidecar's account of its memory.
func (b *Bench) overhead(ctx context.Context, s *peers.Server, p record.Parameters, shape string) error {
	st, err := s.Stats(ctx)
	if err != nil {
		return err
	}
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
	return nil
}
