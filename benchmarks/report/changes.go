package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func changesSection(rounds string) (section, error) {
	f, err := record.Read[record.ChangesParameters, record.ChangesRow](rounds, record.Changes)
	if err != nil {
		return section{}, err
	}
	p := f.Parameters
	of := func(figure func(r *record.ChangesRow) float64) spread {
		var v []float64
		for i := range f.Rows {
			v = append(v, figure(&f.Rows[i]))
		}
		return spreadOf(v)
	}
	delay := func(side string, percentile float64) spread {
		return of(func(r *record.ChangesRow) float64 { return ms(r.DelayUS[side], percentile) })
	}
	s := section{title: "Rows that change in PostgreSQL", head: f.Head}
	commit := fmt.Sprintf("a COMMIT, %d hosts", p.Hosts)
	for _, q := range []float64{50, 99} {
		t := feedP50
		if q == 99 {
			t = feedP99
		}
		s.rows = append(s.rows,
			row{commit, fmt.Sprintf("ms until no host has the old value, p%.0f", q), delay(record.Sidecar, q), "%.2f", nil},
			row{commit, fmt.Sprintf("the same, in parts of a bare reader's, p%.0f", q), of(func(r *record.ChangesRow) float64 {
				return ms(r.DelayUS[record.Sidecar], q) / max(ms(r.DelayUS[record.Reader], q), leastDelay)
			}), "%.1f", t})
	}
	s.rows = append(s.rows,
		row{thousands(int64(p.Rows)) + " rows in the log", "rows/s, feed / bare reader", of(func(r *record.ChangesRow) float64 {
			return r.Rows[record.Sidecar] / r.Rows[record.Reader]
		}), "%.2f", feedRows},
		row{"pgbench -N", "transactions/s, with a feed / without", of(func(r *record.ChangesRow) float64 {
			return r.TPS[record.Sidecar] / r.TPS[record.None]
		}), "%.2f", feedCost},
		row{"pgbench -N", "the same, with a bare reader", of(func(r *record.ChangesRow) float64 {
			return r.TPS[record.Reader] / r.TPS[record.None]
		}), "%.2f", nil})
	s.body = fmt.Sprintf("The bare reader takes the same stream through a slot of its own and does nothing with it. It often has a\n"+
		"row before the COMMIT returns; ratios take its delay as %v ms then. Hosts are asked one after the other, over their\n"+
		"sockets, which takes up to 0.1 ms each; the reader is in the process of the measurement. Rows a second and pgbench\n"+
		"are with one host, whose cache has none of the rows. Hosts, database and pgbench share one machine.\n"+
		"%d rounds: %d commits one after the other, of rows that all hosts have; %s rows that wait in the log; pgbench with\n"+
		"%d clients for %d s a side.\n\n",
		leastDelay, p.Rounds, p.Commits, thousands(int64(p.Rows)), p.Clients, p.Seconds) + changesTable(of, delay)
	return s, nil
}

// leastDelay is the least delay that a ratio takes for the bare reader, in ms.
const leastDelay = 0.02

// changesTable has the absolute figures.
func changesTable(of func(func(r *record.ChangesRow) float64) spread, delay func(side string, percentile float64) spread) string {
	absolute := table{head: []string{"what", "median", "min", "max"}, left: 1}
	add := func(what, format string, v spread) {
		absolute.add(what, fmt.Sprintf(format, v.median), fmt.Sprintf(format, v.least), fmt.Sprintf(format, v.most))
	}
	add("bare reader, ms after the COMMIT, p50", "%.2f", delay(record.Reader, 50))
	add("bare reader, ms after the COMMIT, p99", "%.2f", delay(record.Reader, 99))
	for _, side := range []struct{ name, text string }{{record.Sidecar, "feed"}, {record.Reader, "bare reader"}} {
		add("rows/s, "+side.text, "%.0f", of(func(r *record.ChangesRow) float64 { return r.Rows[side.name] }))
	}
	for _, side := range []struct{ name, text string }{{record.None, "no stream"}, {record.Reader, "bare reader"}, {record.Sidecar, "feed"}} {
		add("pgbench -N, transactions/s, "+side.text, "%.0f", of(func(r *record.ChangesRow) float64 { return r.TPS[side.name] }))
	}
	return "Absolute figures, as context:\n\n" + absolute.String()
}
