package measure

import (
	"context"
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// Memory measures the memory of a filled sidecar and a filled memcached. Each round has
// new processes.
func (b *Bench) Memory(ctx context.Context, p record.MemoryParameters) (rows []record.MemoryRow, err error) {
	names := []string{record.Sidecar, record.Memcached}
	for round := range p.Rounds {
		row := record.MemoryRow{Round: round + 1, Sides: map[string]record.MemorySide{}}
		for i := range names {
			name := names[(round+i)%len(names)]
			if row.Sides[name], err = b.filled(ctx, name, p, &row.Parts); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
		rows = append(rows, row)
		s, m := row.Sides[record.Sidecar].Resident, row.Sides[record.Memcached].Resident
		b.logf("round %d: %d entries: sidecar %d MiB, memcached %d MiB, ratio %.3f, overhead %.1f B an entry", row.Round, p.Keys,
			s>>20, m>>20, float64(s)/float64(m), float64(row.Parts.Used-row.Parts.Payload)/float64(p.Keys))
	}
	return rows, nil
}

func (b *Bench) filled(ctx context.Context, name string, p record.MemoryParameters, parts *record.MemoryParts) (side record.MemorySide, err error) {
	s, err := b.start(ctx, name, peers.Options{Bytes: p.Limit, KeySize: p.KeySize, ValueSize: p.ValueSize})
	if err != nil {
		return side, err
	}
	defer s.Stop()
	if side.Empty, err = s.Settled(ctx); err != nil {
		return side, err
	}
	took, err := fill(ctx, s, p.Keys)
	if err != nil {
		return side, err
	}
	side.FillSeconds = took.Seconds()
	if side.Resident, err = s.Settled(ctx); err != nil {
		return side, err
	}
	if side.Entries, side.Evicted, err = s.Count(ctx); err != nil {
		return side, err
	}
	if side.Entries != int64(p.Keys) || side.Evicted != 0 {
		return side, fmt.Errorf("it holds %d entries of %d set and has evicted %d: the comparison is of servers that evict nothing; give more bytes", side.Entries, p.Keys, side.Evicted)
	}
	if name == record.Sidecar {
		st, err := s.Stats(ctx)
		if err != nil {
			return side, err
		}
		m := st.L2.Memory
		*parts = record.MemoryParts{
			Payload: m.Payload, Headers: m.Headers, Alignment: m.Alignment, Index: m.Index, Ghosts: m.Ghosts,
			Open: m.Open, Tails: m.Tails, Dead: m.Dead, Quotas: m.Quotas, Used: m.Used,
		}
	}
	return side, nil
}
