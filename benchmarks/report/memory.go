package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func memorySection(rounds string) (section, error) {
	f, err := record.Read[record.MemoryParameters, record.MemoryRow](rounds, record.Memory)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	of := func(figure func(r record.MemoryRow) float64) spread { return spreadOver(f.Rows, figure) }
	entries := float64(p.Keys)
	payload := entries * float64(p.KeySize+p.ValueSize)
	over := func(name string) spread {
		return of(func(r record.MemoryRow) float64 { return (float64(r.Sides[name].Resident) - payload) / entries })
	}
	what := fmt.Sprintf("%s entries of %d + %d B", thousands(int64(p.Keys)), p.KeySize, p.ValueSize)
	s := section{title: "Memory", head: f.Head, rows: []row{
		{what, "resident memory, sidecar / memcached", of(func(r record.MemoryRow) float64 {
			return float64(r.Sides[record.Sidecar].Resident) / float64(r.Sides[record.Memcached].Resident)
		}), "%.3f", residentOfMemcached},
		{what, "sidecar's overhead by its own account, B an entry", of(func(r record.MemoryRow) float64 {
			return float64(r.Parts.Used-r.Parts.Payload) / entries
		}), "%.1f", overheadBytes},
		{what, "sidecar: resident beyond keys and values, B an entry", over(record.Sidecar), "%.1f", nil},
		{what, "memcached: resident beyond keys and values, B an entry", over(record.Memcached), "%.1f", nil},
	}}
	s.body = fmt.Sprintf("Both servers were allowed %s and were filled anew in each of %d rounds; by their own counts each has all entries and has\n"+
		"evicted none. Resident memory is of the whole process.\n\nThe sidecar's overhead by part:\n\n", mib(float64(p.Limit)), p.Rounds)
	s.body += partsTable(f.Rows, entries) + "Absolute figures, as context:\n\n" + residentTable(f.Rows)
	return s, nil
}

// spreadOver returns the spread of a figure over the rounds.
func spreadOver(rows []record.MemoryRow, figure func(r record.MemoryRow) float64) spread {
	var v []float64
	for _, r := range rows {
		v = append(v, figure(r))
	}
	return spreadOf(v)
}

// partsTable is the sidecar's overhead by part, in bytes an entry.
func partsTable(rows []record.MemoryRow, entries float64) string {
	parts := table{head: []string{"part", "B an entry"}, left: 1}
	for _, part := range []struct {
		name string
		of   func(record.MemoryParts) int64
	}{
		{"entry headers", func(m record.MemoryParts) int64 { return m.Headers }},
		{"alignment", func(m record.MemoryParts) int64 { return m.Alignment }},
		{"index", func(m record.MemoryParts) int64 { return m.Index }},
		{"ghosts", func(m record.MemoryParts) int64 { return m.Ghosts }},
		{"open segments, not yet written", func(m record.MemoryParts) int64 { return m.Open }},
		{"ends of segments", func(m record.MemoryParts) int64 { return m.Tails }},
		{"dead entries", func(m record.MemoryParts) int64 { return m.Dead }},
		{"queues of quotas", func(m record.MemoryParts) int64 { return m.Quotas }},
		{"together", func(m record.MemoryParts) int64 { return m.Used - m.Payload }},
	} {
		v := spreadOver(rows, func(r record.MemoryRow) float64 { return float64(part.of(r.Parts)) / entries })
		parts.add(part.name, fmt.Sprintf("%.2f", v.median))
	}
	return parts.String()
}

// residentTable is each server's memory and entries, before and after it was filled.
func residentTable(rows []record.MemoryRow) string {
	absolute := table{head: []string{"server", "empty", "filled", "entries", "evicted", "filled in s"}, left: 1}
	for _, name := range []string{record.Sidecar, record.Memcached} {
		side := func(figure func(record.MemorySide) float64) float64 {
			return spreadOver(rows, func(r record.MemoryRow) float64 { return figure(r.Sides[name]) }).median
		}
		absolute.add(name,
			mib(side(func(m record.MemorySide) float64 { return float64(m.Empty) })),
			mib(side(func(m record.MemorySide) float64 { return float64(m.Resident) })),
			rate(side(func(m record.MemorySide) float64 { return float64(m.Entries) })),
			rate(side(func(m record.MemorySide) float64 { return float64(m.Evicted) })),
			fmt.Sprintf("%.1f", side(func(m record.MemorySide) float64 { return m.FillSeconds })))
	}
	return absolute.String()
}
