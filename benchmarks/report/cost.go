package report

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// costLoad is one load beside something, with its rounds.
type costLoad struct {
	beside, op string
	conns      int
	steady     bool
	rounds     []record.CostRow
}

func (l costLoad) String() string {
	text := fmt.Sprintf("%s, %d × 1", l.op, l.conns)
	if l.steady {
		text = fmt.Sprintf("%s, %d connections, %s/s", l.op, l.conns, rate(l.rounds[0].Rate))
	}
	switch l.beside {
	case record.Spinners:
		return text + ", beside processes that spin"
	case record.Builds:
		return text + ", beside builds"
	}
	return text
}

// ratio returns a figure of a side relative to that of another.
func (l costLoad) ratio(side, other string, of func(record.CostSide) float64) spread {
	var v []float64
	for _, r := range l.rounds {
		v = append(v, of(r.Sides[side])/of(r.Sides[other]))
	}
	return spreadOf(v)
}

// costSides are the sides in the order of the table, with their names there.
var costSides = []struct{ side, called string }{
	{record.Sidecar, "own protocol"}, {record.EndpointText, "endpoint, text"}, {record.MemcachedText, "memcached"},
	{record.MemcachedTuned, "memcached, tuned"}, {record.Bare, "bare"},
}

func costSection(rounds string) (section, error) {
	f, err := record.Read[record.CostParameters, record.CostRow](rounds, record.Cost)
	if err != nil {
		return section{}, err
	}
	loads, err := costLoads(f.Rows)
	if err != nil {
		return section{}, err
	}
	s := section{title: "What a request costs", head: f.Head}
	relative := table{head: []string{"load"}, left: 1}
	absolute, steady := table{head: []string{"load"}, left: 1}, table{head: []string{"load"}, left: 1}
	for _, side := range costSides {
		absolute.head, steady.head = append(absolute.head, side.called), append(steady.head, side.called)
		if side.side != record.MemcachedText {
			relative.head = append(relative.head, side.called)
		}
	}
	for _, l := range loads {
		s.rows = append(s.rows, costRows(l)...)
		if l.steady {
			steady.add(l.latencies()...)
			continue
		}
		ratios, figures := []string{l.String()}, []string{l.String()}
		for _, side := range costSides {
			var cost, rates []float64
			for _, r := range l.rounds {
				cost, rates = append(cost, r.Sides[side.side].PerRequest()), append(rates, r.Sides[side.side].PerSecond())
			}
			figures = append(figures, fmt.Sprintf("%.1f µs, %s/s", spreadOf(cost).median, rate(spreadOf(rates).median)))
			if side.side != record.MemcachedText {
				ratios = append(ratios, fmt.Sprintf("%.2f, %.2f", l.ratio(side.side, record.MemcachedText, record.CostSide.PerRequest).median,
					l.ratio(side.side, record.MemcachedText, record.CostSide.PerSecond).median))
			}
		}
		relative.add(ratios...)
		absolute.add(figures...)
	}
	p := f.Parameters
	s.body = fmt.Sprintf("The processor time that a server's process takes for a request, if one request is in flight on each connection,\n"+
		"and requests a second, over Unix sockets. %s keys of %d bytes, values of %d bytes; %d rounds, in each of which every side had\n"+
		"%d turns of %d ms. memcached has its four threads, and *tuned* as many as there are processors. *bare* is a Go server of a hundred\n"+
		"lines with fixed answers to memcached's text commands: what a request costs at least.\n"+
		"Processes that spin: as many as there are processors. Builds: of a Go program with all that it imports, again and again.\n\n",
		thousands(int64(p.Keys)), p.KeySize, p.ValueSize, p.Rounds, p.Turns.Turns, p.TurnMS)
	s.body += "Processor time of a request, and requests a second, relative to memcached's:\n\n" + relative.String()
	s.body += "Absolute figures, as context:\n\n" + absolute.String()
	s.body += fmt.Sprintf("Latencies at a steady rate of %s requests a second, of which each side has %d ms in a round. A request is sent when\n"+
		"it is due, however long the answers take; p50 and p99 of the time from then on, in µs:\n\n",
		thousands(int64(p.Rate)), p.SteadyMS) + steady.String()
	return s, nil
}

// costLoads returns the loads of some rows.
func costLoads(rows []record.CostRow) (loads []costLoad, err error) {
	for _, r := range rows {
		for _, s := range costSides {
			if side := r.Sides[s.side]; side.Requests == 0 || side.CPU <= 0 || side.Seconds <= 0 {
				return nil, fmt.Errorf("round %d of %s × %d has no figures of %s: "+
					"measure it again with \"go run ./cmd/bench %s\"", r.Round, r.Op, r.Conns, s.side, record.Cost)
			}
		}
		i := slices.IndexFunc(loads, func(l costLoad) bool {
			return l.beside == r.Beside && l.op == r.Op && l.conns == r.Conns && l.steady == (r.Rate > 0)
		})
		if i < 0 {
			i = len(loads)
			loads = append(loads, costLoad{beside: r.Beside, op: r.Op, conns: r.Conns, steady: r.Rate > 0})
		}
		loads[i].rounds = append(loads[i].rounds, r)
	}
	return loads, nil
}

// latencies returns the row of a load at a steady rate.
func (l costLoad) latencies() []string {
	list := []string{l.String()}
	for _, side := range costSides {
		var p50, p99 []float64
		for _, r := range l.rounds {
			p50, p99 = append(p50, r.Sides[side.side].P50), append(p99, r.Sides[side.side].P99)
		}
		list = append(list, fmt.Sprintf("%.0f, %.0f", spreadOf(p50).median, spreadOf(p99).median))
	}
	return list
}

// costRows returns a load's ratios with their targets.
func costRows(l costLoad) (rows []row) {
	cpu, rate := record.CostSide.PerRequest, record.CostSide.PerSecond
	rateOf := rateOfMemcached
	if l.conns == 1 {
		rateOf = rateOfMemcachedAlone
	}
	add := func(figure string, t *target, s spread) { rows = append(rows, row{l.String(), figure, s, "%.2f", t}) }
	if l.steady {
		p99 := func(s record.CostSide) float64 { return s.P99 }
		add("p99, endpoint / memcached", steadyOfMemcached, l.ratio(record.EndpointText, record.MemcachedText, p99))
		return rows
	}
	switch {
	case l.conns == 1:
		add("CPU, endpoint / bare", costOfBareAlone, l.ratio(record.EndpointText, record.Bare, cpu))
	case l.conns >= 64:
		add("CPU, endpoint / memcached", costOfMemcachedMany, l.ratio(record.EndpointText, record.MemcachedText, cpu))
	default:
		add("CPU, endpoint / memcached", costOfMemcached, l.ratio(record.EndpointText, record.MemcachedText, cpu))
	}
	if l.conns > 1 && l.beside == record.Nothing {
		add("CPU, endpoint / bare", costOfBare, l.ratio(record.EndpointText, record.Bare, cpu))
	}
	if l.conns != 4 && l.beside != record.Builds {
		add("requests/s, endpoint / memcached", rateOf, l.ratio(record.EndpointText, record.MemcachedText, rate))
	}
	return rows
}
