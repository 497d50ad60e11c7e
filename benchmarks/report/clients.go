package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func clientsSection(rounds string) (section, error) {
	f, err := record.Read[record.ClientsParameters, record.ClientsRow](rounds, record.Clients)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	of := func(goroutines int, figure func(r record.ClientsRow) float64) spread {
		var v []float64
		for _, r := range f.Rows {
			if r.Goroutines == goroutines {
				v = append(v, figure(r))
			}
		}
		return spreadOf(v)
	}
	against := func(ours string, others ...string) func(r record.ClientsRow) float64 {
		return func(r record.ClientsRow) float64 {
			best := 0.0
			for _, o := range others {
				best = max(best, r.Sides[o].PerSecond())
			}
			return r.Sides[ours].PerSecond() / best
		}
	}
	sockets := []string{record.Gomemcache, record.GoRedis, record.RueidisPlain}
	s := section{title: "Go clients", head: f.Head}
	for _, n := range p.Goroutines {
		what := fmt.Sprintf("GET hits, %d goroutines", n)
		if n == 1 {
			what = "GET hits, 1 goroutine"
			for _, o := range sockets[:2] {
				s.rows = append(s.rows, row{what, "over the socket / " + o, of(n, against(record.OursSocket, o)), "%.2f", clientOfOthers})
			}
			s.rows = append(s.rows,
				row{what, "shared memory / the better of memcached and redis", of(n, against(record.OursShared, sockets...)), "%.0f", sharedOfOthers},
				row{what, "shared memory, ns a hit", of(n, func(r record.ClientsRow) float64 { return 1e9 / r.Sides[record.OursShared].PerSecond() }), "%.0f", sharedNS})
			continue
		}
		goal := clientOfBest
		if n >= 64 {
			goal = clientOfBestMany
		}
		s.rows = append(s.rows, row{what, "over the socket / the best of the others", of(n, against(record.OursSocket, sockets...)), "%.2f", goal})
	}
	first := fmt.Sprintf("first %s GETs of a process", thousands(int64(p.ColdGets)))
	for _, o := range []string{record.RueidisNear, record.OursNear} {
		s.rows = append(s.rows, row{first, "shared memory / " + o, of(0, against(record.OursShared, o)), "%.2f", ahead})
	}
	s.body = fmt.Sprintf("Each client asks its own server on a Unix socket for %s keys of %d bytes with values of %d, in a program that has nothing else to do. "+
		"The clients of pools keep a connection for each goroutine. The near cache, rueidis' client-side cache and the shared memory are warm, but for the first GETs of a process: "+
		"there the client is made first, other processes have read the keys before, and connecting counts.\n\n", thousands(int64(p.Keys)), p.KeySize, p.ValueSize) +
		"Absolute figures, as context; latency is of one call in eight:\n\n" + clientFigures(p, of)
	return s, nil
}

// clientFigures returns the table of absolute figures. of returns the spread of a figure over
// the rounds.
func clientFigures(p record.ClientsParameters, of func(int, func(record.ClientsRow) float64) spread) string {
	absolute := table{head: []string{"client", "goroutines", "k/s", "p50, µs", "p99, µs", "allocations a GET"}, left: 1}
	for _, side := range record.ClientSides {
		for _, n := range p.Goroutines {
			k := of(n, func(r record.ClientsRow) float64 { return r.Sides[side].PerSecond() / 1000 })
			p50 := of(n, func(r record.ClientsRow) float64 { return r.Sides[side].At(50) })
			p99 := of(n, func(r record.ClientsRow) float64 { return r.Sides[side].At(99) })
			allocs := of(n, func(r record.ClientsRow) float64 { return r.Allocs[side] })
			absolute.add(side, fmt.Sprint(n), fmt.Sprintf("%.0f", k.median), fmt.Sprintf("%.2f", p50.median),
				fmt.Sprintf("%.2f", p99.median), fmt.Sprintf("%.1f", allocs.median))
		}
	}
	return absolute.String()
}
