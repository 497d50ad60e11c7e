package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func idleSection(rounds string) (section, error) {
	f, err := record.Read[record.IdleParameters, record.IdleRow](rounds, record.Idle)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	each := func(s record.IdleSide, batch bool) float64 { // bytes per connection
		after := s.AfterOne
		if batch {
			after = s.AfterAll
		}
		return float64(after-s.Before) / float64(p.Conns)
	}
	of := func(figure func(sides map[string]record.IdleSide) float64) spread {
		var v []float64
		for _, r := range f.Rows {
			v = append(v, figure(r.Sides))
		}
		return spreadOf(v)
	}
	what := thousands(int64(p.Conns)) + " idle connections"
	s := section{title: "Idle connections", head: f.Head}
	absolute := table{head: []string{"server", "after", "KiB a connection", "min", "max"}, left: 2}
	for _, batch := range []bool{false, true} {
		after := "one GET"
		if batch {
			after = fmt.Sprintf("a batch of %d GETs", p.Pipeline)
		}
		s.rows = append(s.rows, row{what, "KiB a connection after " + after + ", sidecar", of(func(sides map[string]record.IdleSide) float64 {
			return each(sides[record.Sidecar], batch) / 1024
		}), "%.1f", idleKiB})
		for _, other := range []string{record.Redis, record.Memcached} {
			s.rows = append(s.rows, row{what, "memory after " + after + ", sidecar / " + other, of(func(sides map[string]record.IdleSide) float64 {
				return each(sides[record.Sidecar], batch) / each(sides[other], batch)
			}), "%.2f", nil})
		}
		for _, name := range []string{record.Sidecar, record.Redis, record.Memcached} {
			v := of(func(sides map[string]record.IdleSide) float64 { return each(sides[name], batch) / 1024 })
			absolute.add(name, after, fmt.Sprintf("%.1f", v.median), fmt.Sprintf("%.1f", v.least), fmt.Sprintf("%.1f", v.most))
		}
	}
	s.body = fmt.Sprintf("Memory is what the server's process grew by, without the kernel's own for each socket; %d rounds, each with new processes.\n\n", p.Rounds) +
		"Absolute figures, as context:\n\n" + absolute.String()
	return s, nil
}
