package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func gcSection(rounds string) (section, error) {
	f, err := record.Read[record.GCParameters, record.GCRow](rounds, record.GC)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	of := func(figure func(r record.GCRow) float64) spread {
		var v []float64
		for _, r := range f.Rows {
			v = append(v, figure(r))
		}
		return spreadOf(v)
	}
	p99 := func(side string) spread {
		return of(func(r record.GCRow) float64 { return r.Sides[side].At(99) / r.Sides[record.Few].At(99) })
	}
	many, few := thousands(int64(p.Keys)), thousands(int64(p.Few))
	what := many + " entries resident"
	s := section{title: "Garbage collection", head: f.Head, rows: []row{
		{what, "collector's share of CPU, %", of(func(r record.GCRow) float64 { return 100 * r.CPUShare }), "%.3f", gcShare},
		{what, "longest pause, ms", of(func(r record.GCRow) float64 { return float64(r.PauseUS) / 1000 }), "%.3f", gcPause},
		{what, "p99 of GET of all keys / p99 with " + few + " entries", p99(record.All), "%.2f", nil},
		{what, "p99 of GET of " + few + " of the keys / p99 with " + few + " entries", p99(record.Hot), "%.2f", p99OfFew},
	}}
	s.body = fmt.Sprintf("Share and pause are the sidecar's own, since its start, the filling included; %s connections were opened, sent a request and closed before each of\n"+
		"%d rounds, since nothing else makes garbage. GETs at %d × %d, a full and a nearly empty sidecar in turns. Reads of all keys also miss the\n"+
		"processor's caches, which reads of a few of them do not.\n\n", thousands(int64(p.Churn)), p.Rounds, p.Conns, p.Pipeline)
	absolute := table{head: []string{"sidecar with", "GETs of", "requests/s", "p50 µs", "p99 µs", "p99.9 µs"}, left: 2}
	for _, side := range []struct{ name, with, keys string }{
		{record.Few, few, few}, {record.All, many, many}, {record.Hot, many, few},
	} {
		at := func(percentile float64) string {
			return fmt.Sprintf("%.0f", of(func(r record.GCRow) float64 { return r.Sides[side.name].At(percentile) }).median)
		}
		absolute.add(side.with+" entries", side.keys+" keys", rate(of(func(r record.GCRow) float64 { return r.Sides[side.name].PerSecond() }).median), at(50), at(99), at(99.9))
	}
	last := f.Rows[len(f.Rows)-1]
	s.body += "Absolute figures, as context:\n\n" + absolute.String() +
		fmt.Sprintf("At the end the full sidecar had run %d collections and had %s on the Go heap.\n\n", last.Runs, mib(float64(last.Heap)))
	return s, nil
}
