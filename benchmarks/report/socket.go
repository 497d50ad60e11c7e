package report

import (
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// load is one shape of load on the socket, with its rounds.
type load struct {
	op              string
	conns, pipeline int
	rounds          []record.SocketRow
}

func (l load) String() string {
	switch l.op {
	case "GET":
		return fmt.Sprintf("GET hit, %d × %d", l.conns, l.pipeline)
	case record.MultiGet:
		return fmt.Sprintf("GET hits, %d keys a line, %d × 1", l.pipeline, l.conns)
	}
	return fmt.Sprintf("%s, %d × %d", l.op, l.conns, l.pipeline)
}

// figures returns a figure of the sides over the rounds.
func (l load) figures(of func(sides map[string]record.Side) float64) spread {
	var v []float64
	for _, r := range l.rounds {
		v = append(v, of(r.Sides))
	}
	return spreadOf(v)
}

func perSecond(name string) func(map[string]record.Side) float64 {
	return func(s map[string]record.Side) float64 { return s[name].PerSecond() }
}

// ratio returns the sidecar's throughput relative to the best of the others.
func (l load) ratio(others ...string) spread { return l.ratioOf(record.Sidecar, others...) }

// ratioOf returns a side's throughput relative to the best of the others.
func (l load) ratioOf(side string, others ...string) spread {
	return l.figures(func(s map[string]record.Side) float64 {
		best := 0.0
		for _, name := range others {
			best = max(best, s[name].PerSecond())
		}
		return s[side].PerSecond() / best
	})
}

// loadsOf groups the rounds of a measurement by load. sides returns those that must be in a
// load's rounds.
func loadsOf(what string, rows []record.SocketRow, sides func(l load) []string) (loads []load, err error) {
	for _, r := range rows {
		i := slices.IndexFunc(loads, func(l load) bool { return l.op == r.Op && l.conns == r.Conns && l.pipeline == r.Pipeline })
		if i < 0 {
			i = len(loads)
			loads = append(loads, load{op: r.Op, conns: r.Conns, pipeline: r.Pipeline})
		}
		for _, name := range sides(loads[i]) {
			if side := r.Sides[name]; side.Requests == 0 || side.Seconds <= 0 || len(side.LatencyUS) != len(record.Percentiles) {
				return nil, fmt.Errorf("round %d of %v has no figures of %s: measure it again with \"go run ./cmd/bench %s\"", r.Round, loads[i], name, what)
			}
		}
		loads[i].rounds = append(loads[i].rounds, r)
	}
	return loads, nil
}

// absoluteTable is a table of figures for add, as context.
func absoluteTable(side string) table {
	return table{head: []string{"load", side, "requests/s", "min", "max", "p50 µs", "p99 µs", "p99.9 µs"}, left: 2}
}

// addLoad adds a side's figures under a load.
func (t *table) addLoad(l load, side, called string) {
	at := func(p float64) string {
		return fmt.Sprintf("%.0f", l.figures(func(s map[string]record.Side) float64 { return s[side].At(p) }).median)
	}
	v := l.figures(perSecond(side))
	t.add(l.String(), called, rate(v.median), rate(v.least), rate(v.most), at(50), at(99), at(99.9))
}

// socketSides are the servers in the order of the tables and of the plots' colours.
var socketSides = []string{record.Sidecar, record.Redis, record.Memcached, record.Echo}

func socketSection(rounds string) (section, error) {
	f, err := record.Read[record.SocketParameters, record.SocketRow](rounds, record.Socket)
	if err != nil {
		return section{}, err
	}
	loads, err := loadsOf(record.Socket, f.Rows, func(load) []string { return socketSides })
	if err != nil {
		return section{}, err
	}
	s := section{title: "Throughput and latency on the socket", head: f.Head, plots: map[string]plot.Chart{}}
	absolute := absoluteTable("server")
	for _, l := range loads {
		if !slices.Contains(tabled, [2]int{l.conns, l.pipeline}) {
			continue
		}
		s.rows = append(s.rows, socketRows(l)...)
		for _, name := range socketSides {
			absolute.addLoad(l, name, name)
		}
	}
	p := f.Parameters
	s.body = fmt.Sprintf("Loads are connections × requests in flight on each. %s keys of %d bytes, drawn uniformly; values of %d bytes; %d rounds,\n"+
		"in each of which every server had %d turns of %d ms. Client and server share the cores. Latency is of a whole batch.\n"+
		"The echo server returns frames as long as the sidecar's requests or answers, whichever are longer: the limit for a Go server.\n\n",
		thousands(int64(p.Keys)), p.KeySize, p.ValueSize, p.Rounds, p.Turns.Turns, p.TurnMS)
	s.addThroughput(loads)
	s.addLatency(loads)
	s.body += "Absolute figures, as context:\n\n" + absolute.String()
	return s, nil
}

// tabled are the shapes in the tables.
var tabled = [][2]int{{1, 1}, {16, 1}, {1, 64}, {16, 64}}

// socketRows returns a load's ratios with their targets.
func socketRows(l load) (rows []row) {
	add := func(figure string, t *target, others ...string) {
		rows = append(rows, row{l.String(), figure, l.ratio(others...), "%.2f", t})
	}
	batch := l.pipeline > 1
	switch {
	case l.op == "GET" && batch:
		var better *target
		if l.conns > 1 {
			better = batchOfBetter
		}
		add("sidecar / echo", nil, record.Echo)
		add("sidecar / better of redis and memcached", better, record.Redis, record.Memcached)
		add("sidecar / redis", nil, record.Redis)
	case l.op == "GET":
		add("sidecar / echo", getOfEcho, record.Echo)
		add("sidecar / redis", ahead, record.Redis)
		add("sidecar / memcached", ahead, record.Memcached)
	default:
		add("sidecar / redis", ahead, record.Redis)
		add("sidecar / memcached", ahead, record.Memcached)
	}
	if !batch {
		p99 := l.figures(func(s map[string]record.Side) float64 {
			return s[record.Sidecar].At(99) / s[record.Memcached].At(99)
		})
		rows = append(rows, row{l.String(), "p99, sidecar / memcached", p99, "%.2f", p99NoWorse})
	}
	return rows
}
