package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// overloadKinds are the kinds of load, and their names on the page.
var overloadKinds = []struct{ kind, what string }{
	{record.Requests, "small requests"}, {record.Connections, "connections"},
	{record.Large, "large values"}, {record.Misses, "loads"},
}

// overloadPhases are the rates, and their names on the page.
var overloadPhases = []struct{ phase, text string }{
	{record.Calm, "0.8 ×"}, {record.Near, "0.9 or 1.1 ×"}, {record.Over, "3 ×"},
}

func overloadSection(rounds string) (section, error) {
	f, err := record.Read[record.OverloadParameters, record.OverloadRow](rounds, record.Overload)
	if err != nil {
		return section{}, err
	}
	of := map[string][]record.OverloadRow{}
	for _, r := range f.Rows {
		if r.Kind != record.Metrics && len(r.Phases) != len(overloadPhases) || r.Kind == record.Metrics && len(r.Sides) != 2 {
			return section{}, fmt.Errorf("%s %d has no figures of a rate or side: measure it again with \"go run ./cmd/bench overload\"", r.Kind, r.Round)
		}
		of[r.Kind] = append(of[r.Kind], r)
	}
	s := section{title: "Overload", head: f.Head}
	absolute := table{head: []string{"load", "rate", "offered/s", "served/s", "p50 ms", "p99 ms", "BUSY %", "BUSY p99 ms", "late %", "held back %", "lag p99 ms",
		"MiB", "goroutines", "descriptors"}, left: 2}
	for _, k := range overloadKinds {
		if list := of[k.kind]; len(list) > 0 {
			s.rows = append(s.rows, overloadRows(k.what, list)...)
			overloadTable(&absolute, k.what, list)
		}
	}
	for _, depth := range []int{1, 64} {
		var v []float64
		for _, r := range of[record.Metrics] {
			if r.Depth == depth {
				v = append(v, r.Sides[record.Scraped].PerSecond()/r.Sides[record.HTTPOff].PerSecond())
			}
		}
		if len(v) > 0 {
			s.rows = append(s.rows, row{fmt.Sprintf("GET hit, 16 × %d", depth), "requests/s, metrics asked for each second / without HTTP", spreadOf(v), "%.3f", scrapedRatio})
		}
	}
	s.body = overloadText(f.Parameters) + absolute.String()
	return s, nil
}

// overloadRows returns the rows of one kind.
func overloadRows(what string, list []record.OverloadRow) []row {
	over := func(figure func(over, near, calm record.OverloadPhase) float64) spread {
		var v []float64
		for _, r := range list {
			v = append(v, figure(r.Phases[record.Over], r.Phases[record.Near], r.Phases[record.Calm]))
		}
		return spreadOf(v)
	}
	what += " at 3 × saturation"
	rows := []row{
		{what, "goodput / peak", over(func(o, n, _ record.OverloadPhase) float64 { return o.PerSecond() / n.PerSecond() }), "%.2f", overGoodput},
		{what, "p99 of served / p99 at 0.8 ×", over(func(o, _, c record.OverloadPhase) float64 { return o.Serve(99) / c.Serve(99) }), "%.2f", overP99},
	}
	busy := row{what, "p99 until BUSY, ms", over(func(o, _, _ record.OverloadPhase) float64 { return o.Refuse(99) / 1000 }), "%.1f", overBusy}
	for _, r := range list {
		if r.Phases[record.Over].Busy > 0 {
			return append(rows, busy)
		}
	}
	return rows // none was refused
}

// overloadTable adds the absolute figures of one kind: medians over the rounds.
func overloadTable(t *table, what string, list []record.OverloadRow) {
	for _, p := range overloadPhases {
		m := func(format string, figure func(record.OverloadPhase) float64) string {
			var v []float64
			for _, r := range list {
				v = append(v, figure(r.Phases[p.phase]))
			}
			return fmt.Sprintf(format, spreadOf(v).median)
		}
		share := func(n, of int64) float64 { return 100 * float64(n) / float64(max(1, of)) }
		t.add(what, p.text,
			m("%.0f", func(p record.OverloadPhase) float64 { return p.Rate }),
			m("%.0f", record.OverloadPhase.PerSecond),
			m("%.2f", func(p record.OverloadPhase) float64 { return p.Serve(50) / 1000 }),
			m("%.2f", func(p record.OverloadPhase) float64 { return p.Serve(99) / 1000 }),
			m("%.0f", func(p record.OverloadPhase) float64 { return share(p.Busy, p.Due) }),
			m("%.2f", func(p record.OverloadPhase) float64 { return p.Refuse(99) / 1000 }),
			m("%.0f", func(p record.OverloadPhase) float64 { return share(p.Late, p.Due) }),
			m("%.0f", func(p record.OverloadPhase) float64 { return share(p.Held, p.Due) }),
			m("%.2f", func(p record.OverloadPhase) float64 { return p.Lag(99) / 1000 }),
			m("%.0f", func(p record.OverloadPhase) float64 { return float64(p.Most.Resident) / (1 << 20) }),
			m("%.0f", func(p record.OverloadPhase) float64 { return float64(p.Most.Goroutines) }),
			m("%.0f", func(p record.OverloadPhase) float64 { return float64(p.Most.Descriptors) }))
	}
}

func overloadText(p record.OverloadParameters) string {
	return fmt.Sprintf("One sidecar on one processor; the load, with its origin, on another one. The load is a rate: a request is sent when it is due, or not at all.\n"+
		"Saturation is the greatest rate of which at least 95 %% is served; the peak is the goodput at 0.9 or 1.1 of it, whichever is greater. %d rounds of\n"+
		"%d ms for each rate, after %d ms of it. Goodput is useful answers within the timeout: %d ms of small requests, %d ms of connections, %d ms of\n"+
		"large values and of loads. Times run from the moment at which a request is due, and so include the kernel's buffers and the load's own delay\n"+
		"(lag). *Held back* are requests that their connection could not take when they were due: the kernel's buffer was full or, with large values, the\n"+
		"answer before was not there. The sidecar has never seen them. Small requests: GETs, each tenth a SET of %d bytes, over %d connections. Connections: each\n"+
		"says HELLO, sends a GET and closes. Large values: GETs and SETs of %d KiB, over %d connections, one at a time on each. Loads: GETs of keys that are not\n"+
		"there, from an HTTP origin that works on %d calls at once, for %d ms each. The last three columns are the most that was seen, 20 times a second.\n\n",
		p.Rounds, p.PhaseMS, p.WarmUpMS, p.TimeoutMS[record.Requests], p.TimeoutMS[record.Connections], p.TimeoutMS[record.Large],
		p.ValueSize, p.Conns, p.LargeSize>>10, p.Conns, p.OriginPlaces, p.OriginMS)
}
