package report

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// streamRounds are the rounds at one rate.
type streamRounds []record.PropagationRow

func (c streamRounds) of(side string, figure func(s record.StreamSide) float64) spread {
	var v []float64
	for _, r := range c {
		v = append(v, figure(r.Streams[side]))
	}
	return spreadOf(v)
}

// ratio returns the sidecar's delay to all hosts relative to another side's, within the
// same round.
func (c streamRounds) ratio(side string, percentile float64) spread {
	var v []float64
	for _, r := range c {
		v = append(v, ms(r.Streams[record.Sidecar].AllUS, percentile)/ms(r.Streams[side].AllUS, percentile))
	}
	return spreadOf(v)
}

// ms returns a percentile, in ms, of delays in µs.
func ms(us []float64, percentile float64) float64 {
	return record.Side{LatencyUS: us}.At(percentile) / 1000
}

// streamSides are the sides that keep copies, and their names on the page.
var streamSides = []struct{ name, text string }{{record.Sidecar, "sidecar"}, {record.Redis, "redis, client tracking"}, {record.Fanout, "bare fan-out"}}

// hangSides are the sides that read while a link hangs.
var hangSides = []struct{ name, text, careful string }{
	{record.Sidecar, "sidecar, of a host whose links hang", "a copy is served while the lease on its owner is good"},
	{record.NoPings, "redis, a client that does not ping", "copies are dropped when the connection ends, which it does not"},
	{record.Usual, "redis, rueidis with its defaults", "a ping each second, and 10 s for its answer"},
	{record.Careful, "redis, rueidis with shorter times", "a ping each 0.5 s, and 1 s for its answer"},
}

func propagationSection(rounds string) (section, error) {
	f, err := record.Read[record.PropagationParameters, record.PropagationRow](rounds, record.Propagation)
	if err != nil {
		return section{}, err
	}
	rates := map[int]streamRounds{}
	var hangs []record.PropagationRow
	for _, r := range f.Rows {
		if r.Part == record.Hang {
			for _, s := range hangSides {
				if r.Hangs[s.name].Reads == 0 {
					return section{}, fmt.Errorf("hang %d has no figures of %s: measure it again with \"go run ./cmd/bench propagation\"", r.Round, s.name)
				}
			}
			hangs = append(hangs, r)
			continue
		}
		for _, s := range streamSides {
			if side := r.Streams[s.name]; side.Pairs == 0 || side.Seconds <= 0 || len(side.PairUS) != len(record.Percentiles) || len(side.AllUS) != len(record.Percentiles) {
				return section{}, fmt.Errorf("round %d at %d writes a second has no figures of %s: measure it again with \"go run ./cmd/bench propagation\"", r.Round, r.Rate, s.name)
			}
		}
		rates[r.Rate] = append(rates[r.Rate], r)
	}
	p := f.Parameters
	s := section{title: "Invalidations", head: f.Head}
	s.rows = append(streamRows(rates, p), hangRows(hangs, p)...)
	s.body = streamText(rates, p) + streamTable(rates) + hangText(hangs, p)
	return s, nil
}

func streamRows(rates map[int]streamRounds, p record.PropagationParameters) (rows []row) {
	for _, rate := range ratesOf(rates) {
		c := rates[rate]
		what := fmt.Sprintf("%s invalidations/s, %d hosts", thousands(int64(rate)), p.Hosts)
		all := func(side string, percentile float64) spread {
			return c.of(side, func(s record.StreamSide) float64 { return ms(s.AllUS, percentile) })
		}
		switch {
		case rate == p.Rate:
			rows = append(rows,
				row{what, "ms until all have it, p50", all(record.Sidecar, 50), "%.2f", reachP50},
				row{what, "ms until all have it, p99", all(record.Sidecar, 99), "%.2f", reachP99},
				row{what, "p50, in parts of a bare fan-out's", c.ratio(record.Fanout, 50), "%.2f", nil},
				row{what, "p99, in parts of a bare fan-out's", c.ratio(record.Fanout, 99), "%.2f", nil},
				row{what, "the same of redis' subscribers, p50", all(record.Redis, 50), "%.2f", nil},
				row{what, "the same of redis' subscribers, p99", all(record.Redis, 99), "%.2f", nil})
		case rate > p.Rate:
			rows = append(rows,
				row{what, "ms until all have it, longest", all(record.Sidecar, 100), "%.1f", &target{"≤", float64(p.Bound)}},
				row{what, "the same of redis' subscribers, longest", all(record.Redis, 100), "%.1f", nil})
		}
	}
	return rows
}

func ratesOf(rates map[int]streamRounds) (list []int) {
	for rate := range rates {
		list = append(list, rate)
	}
	slices.Sort(list)
	return list
}

func hangSpread(hangs []record.PropagationRow, side string, figure func(h record.HangSide) float64) spread {
	var v []float64
	for _, r := range hangs {
		v = append(v, figure(r.Hangs[side]))
	}
	return spreadOf(v)
}

func oldSeconds(h record.HangSide) float64 { return h.OldMS / 1000 }

func hangRows(hangs []record.PropagationRow, p record.PropagationParameters) (rows []row) {
	if len(hangs) == 0 {
		return nil
	}
	for _, s := range hangSides {
		r := row{fmt.Sprintf("a link hangs for %d s", p.HangFor), "s for which the overwritten value is served: " + s.text, hangSpread(hangs, s.name, oldSeconds), "%.2f", nil}
		if s.name == record.Sidecar {
			r.target = &target{"≤", float64(p.Bound) / 1000}
		}
		rows = append(rows, r)
	}
	return rows
}

func streamText(rates map[int]streamRounds, p record.PropagationParameters) string {
	c := rates[p.Rate]
	if len(c) == 0 {
		return ""
	}
	share := func(side string, of func(s record.StreamSide) int64) string {
		return fmt.Sprintf("%.2f %%", 100*c.of(side, func(s record.StreamSide) float64 { return float64(of(s)) / float64(s.Pairs+s.NoCopy) }).median)
	}
	return fmt.Sprintf("%d rounds of %d s for each side at %s writes/s, and of %d s at the other rates, in turns. A key of one host is overwritten every %d ms;\n"+
		"the delay is from the answer to the writer until a GET through another host has brought the new value (which the host then\n"+
		"fetches from the owner), or until a subscriber of redis has been told. Of the pairs of an overwrite and a host at %s/s, %s had\n"+
		"no copy to begin with and do not count; %s of those of the sidecar and %s of those of redis had it before the writer was answered,\n"+
		"and count as 0. `max_staleness` was %d ms.\n\n",
		len(c), p.Seconds, thousands(int64(p.Rate)), p.Short, p.EveryMS, thousands(int64(p.Rate)),
		share(record.Sidecar, func(s record.StreamSide) int64 { return s.NoCopy }),
		share(record.Sidecar, func(s record.StreamSide) int64 { return s.Early }),
		share(record.Redis, func(s record.StreamSide) int64 { return s.Early }), p.Bound)
}

// streamTable returns all figures.
func streamTable(rates map[int]streamRounds) string {
	if len(rates) == 0 {
		return ""
	}
	t := table{head: []string{"writes/s wanted", "side", "made", "one host, ms: p50", "p99", "max", "all hosts, ms: p50", "p99", "max", "gaps", "resets", "polls missed"}, left: 2}
	for _, wanted := range ratesOf(rates) {
		for _, side := range streamSides {
			figure := func(format string, of func(s record.StreamSide) float64) string {
				return fmt.Sprintf(format, rates[wanted].of(side.name, of).median)
			}
			most := func(of func(s record.StreamSide) float64) string {
				return fmt.Sprintf("%.2f", rates[wanted].of(side.name, of).most)
			}
			sum := func(of func(s record.StreamSide) int64) string {
				if side.name != record.Sidecar {
					return "–"
				}
				n := int64(0)
				for _, r := range rates[wanted] {
					n += of(r.Streams[side.name])
				}
				return thousands(n)
			}
			t.add(thousands(int64(wanted)), side.text, rate(rates[wanted].of(side.name, record.StreamSide.PerSecond).median),
				figure("%.2f", func(s record.StreamSide) float64 { return ms(s.PairUS, 50) }),
				figure("%.2f", func(s record.StreamSide) float64 { return ms(s.PairUS, 99) }),
				most(func(s record.StreamSide) float64 { return ms(s.PairUS, 100) }),
				figure("%.2f", func(s record.StreamSide) float64 { return ms(s.AllUS, 50) }),
				figure("%.2f", func(s record.StreamSide) float64 { return ms(s.AllUS, 99) }),
				most(func(s record.StreamSide) float64 { return ms(s.AllUS, 100) }),
				sum(func(s record.StreamSide) int64 { return s.Gaps }), sum(func(s record.StreamSide) int64 { return s.Resets }),
				sum(func(s record.StreamSide) int64 { return s.Missed }))
		}
	}
	return "Medians of the rounds; a maximum is that of all rounds, and counts are sums over them:\n\n" + t.String()
}

func hangText(hangs []record.PropagationRow, p record.PropagationParameters) string {
	if len(hangs) == 0 {
		return ""
	}
	t := table{head: []string{"reader", "what ends it", "old value served for, s", "most", "reads", "old", "misses", "errors"}, left: 2}
	for _, s := range hangSides {
		n := func(of func(h record.HangSide) int64) string {
			return thousands(int64(hangSpread(hangs, s.name, func(h record.HangSide) float64 { return float64(of(h)) }).median))
		}
		old := hangSpread(hangs, s.name, oldSeconds)
		t.add(s.text, s.careful, fmt.Sprintf("%.2f", old.median), fmt.Sprintf("%.2f", old.most), n(func(h record.HangSide) int64 { return h.Reads }),
			n(func(h record.HangSide) int64 { return h.Old }), n(func(h record.HangSide) int64 { return h.Misses }), n(func(h record.HangSide) int64 { return h.Errors }))
	}
	return fmt.Sprintf("A link that hangs passes nothing, and neither end is told; the key was overwritten beyond it. A client of redis serves the overwritten value\n"+
		"until it finds the connection dead, for all of the %d s measured and without a bound if it does not ping; the sidecar stops by itself within\n"+
		"`max_staleness`, since a copy needs a lease that only an answered poll renews. What a careful client of redis can reach is the time between\n"+
		"pings and the time that it gives an answer, together, as long as its own timers run.\n\n", p.HangFor) + t.String()
}
