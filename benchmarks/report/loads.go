package report

import (
	"fmt"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// crowdSides are the sides that load a cold key, and their names on the page.
var crowdSides = []struct{ name, text string }{
	{record.Sidecar, "sidecar, its origin"}, {record.Apps, "sidecar, LEASE and FILL by the apps"}, {record.Groupcache, "groupcache, its loader"},
}

func loadsSection(rounds string) (section, error) {
	f, err := record.Read[record.LoadsParameters, record.LoadsRow](rounds, record.Loads)
	if err != nil {
		return section{}, err
	}
	parts := map[string][]record.LoadsRow{}
	for _, r := range f.Rows {
		if !wholeLoads(r) {
			return section{}, fmt.Errorf("%s %d has no figures of a side: measure it again with \"go run ./cmd/bench loads\"", r.Part, r.Round)
		}
		parts[r.Part] = append(parts[r.Part], r)
	}
	p := f.Parameters
	s := section{title: "Loads", head: f.Head}
	for _, part := range []struct {
		name string
		rows func([]record.LoadsRow, record.LoadsParameters) []row
		text func([]record.LoadsRow, record.LoadsParameters) string
	}{
		{record.Crowd, crowdRows, crowdText}, {record.Hasty, hastyRows, hastyText},
		{record.Served, servedRows, servedText}, {record.Outage, outageRows, outageText},
	} {
		if list := parts[part.name]; len(list) > 0 {
			s.rows = append(s.rows, part.rows(list, p)...)
			s.body += part.text(list, p)
		}
	}
	return s, nil
}

// wholeLoads reports whether a row has the figures of all sides.
func wholeLoads(r record.LoadsRow) bool {
	switch r.Part {
	case record.Crowd:
		for _, s := range crowdSides {
			if r.Crowds[s.name].Answered == 0 {
				return false
			}
		}
		return true
	case record.Hasty:
		return r.LeftMS[record.Sidecar] > 0 && r.LeftMS[record.Groupcache] > 0
	case record.Served:
		for _, s := range servedSides {
			if r.Sides[s.name].Requests == 0 {
				return false
			}
		}
		return r.Sides[record.Plain].Requests > 0
	case record.Outage:
		return len(r.Phases) == record.Phases
	}
	return false
}

func loadsSpread(list []record.LoadsRow, figure func(record.LoadsRow) float64) spread {
	var v []float64
	for _, r := range list {
		v = append(v, figure(r))
	}
	return spreadOf(v)
}

func crowdRows(list []record.LoadsRow, p record.LoadsParameters) (rows []row) {
	what := fmt.Sprintf("%s GETs of one cold key at once, %d hosts", thousands(int64(p.Asked())), p.Hosts)
	for _, s := range crowdSides {
		side := func(of func(record.CrowdSide) float64) spread {
			return loadsSpread(list, func(r record.LoadsRow) float64 { return of(r.Crowds[s.name]) })
		}
		calls := row{what, "calls of the origin: " + s.text, side(func(c record.CrowdSide) float64 { return float64(c.Calls) }), "%.0f", nil}
		if s.name != record.Groupcache {
			calls.target = onceCalls
		}
		others := row{what, "requests that got no value: " + s.text, side(func(c record.CrowdSide) float64 { return float64(c.Others) }), "%.0f", crowdOthers}
		rows = append(rows, calls, others, row{what, "ms until all are answered: " + s.text, side(func(c record.CrowdSide) float64 { return c.AllMS }), "%.0f", nil})
	}
	return rows
}

func crowdText(list []record.LoadsRow, p record.LoadsParameters) string {
	t := table{head: []string{"loaded by", "keys", "calls of the origin, in all", "requests", "without the value", "they were told"}, left: 1}
	for _, s := range crowdSides {
		var calls, answered, others int64
		status := "–"
		for _, r := range list {
			c := r.Crowds[s.name]
			calls, answered, others = calls+c.Calls, answered+c.Answered, others+c.Others
			if c.Status != "" {
				status = c.Status
			}
		}
		t.add(s.text, thousands(int64(len(list))), thousands(calls), thousands(answered+others), thousands(others), status)
	}
	return fmt.Sprintf("Each of %d hosts has %d apps' connections with %d requests in flight on each, all for one key that is not cached; for groupcache, which lives in\n"+
		"the program, as many goroutines. The origin takes %d ms. Sidecars answer through their sockets to one process, groupcache to itself.\n\n", p.Hosts, p.Conns, p.Depth, p.Takes) + t.String()
}

func hastyRows(list []record.LoadsRow, p record.LoadsParameters) (rows []row) {
	what := fmt.Sprintf("a caller with %d ms waits for a load of %d ms", p.Haste, p.Takes)
	for _, s := range []struct{ name, text string }{{record.Sidecar, "ms until the sidecar answers"}, {record.Groupcache, "ms until groupcache returns"}} {
		r := row{what, s.text, loadsSpread(list, func(r record.LoadsRow) float64 { return r.LeftMS[s.name] }), "%.1f", nil}
		if s.name == record.Sidecar {
			r.target = &target{"≤", float64(p.Haste)}
		}
		rows = append(rows, r)
	}
	return rows
}

func hastyText(_ []record.LoadsRow, _ record.LoadsParameters) string {
	return "A caller that comes a few ms after a load has begun joins it. The sidecar answers before the request's `timeout_ms` is over (TIMEOUT, or from a\n" +
		"host that has not heard from the owner by then MISS), and the load goes on for the others. A context with that deadline, given to\n" +
		"groupcache's Get, does not end the wait for a load that another caller has begun.\n\n"
}

// servedSides are compared with a namespace without an origin.
var servedSides = []struct {
	name, text string
	target     *target
}{
	{record.WithOrigin, "namespace with an origin", servedRatio},
	{record.NoEarly, "with an origin and refresh_early 0", nil},
	{record.Again, "another without", nil},
}

func servedRows(list []record.LoadsRow, _ record.LoadsParameters) (rows []row) {
	for _, shape := range [][2]int{{1, 1}, {16, 1}, {16, 64}} {
		for _, s := range servedSides {
			var v []float64
			for _, r := range list {
				if r.Conns == shape[0] && r.Pipeline == shape[1] {
					v = append(v, r.Sides[s.name].PerSecond()/r.Sides[record.Plain].PerSecond())
				}
			}
			if len(v) > 0 {
				rows = append(rows, row{fmt.Sprintf("GET hit, %d × %d", shape[0], shape[1]), "requests/s, " + s.text + " / without", spreadOf(v), "%.3f", s.target})
			}
		}
	}
	return rows
}

func servedText(_ []record.LoadsRow, _ record.LoadsParameters) string {
	return "The namespace with an origin has the defaults, `refresh_early` among them. No hit is near its end, so none refreshes.\n" +
		"Another namespace without an origin shows by how much the figure varies.\n\n"
}

// phaseNames are the names of an outage's phases.
var phaseNames = [record.Phases]string{"the origin answers", "it is away", "it is back"}

func outageRows(list []record.LoadsRow, p record.LoadsParameters) (rows []row) {
	of := func(phase int, figure func(record.OutagePhase) float64) spread {
		return loadsSpread(list, func(r record.LoadsRow) float64 { return figure(r.Phases[phase]) })
	}
	what := fmt.Sprintf("the origin is away for %d s", p.Down)
	failed := func(f record.OutagePhase) float64 { return float64(f.Errors + f.Misses) }
	limit := float64(p.Rate * p.OutHosts)
	return append(rows,
		row{what, "reads without a value, meanwhile", of(record.PhaseDown, failed), "%.0f", outErrors},
		row{what, "reads without a value, once it is back", of(record.PhaseBack, failed), "%.0f", outErrors},
		row{what, "ms for a read meanwhile, p99", of(record.PhaseDown, func(f record.OutagePhase) float64 { return f.P99MS }), "%.1f", nil},
		row{what, "ms for a read once it is back, p99", of(record.PhaseBack, func(f record.OutagePhase) float64 { return f.P99MS }), "%.1f", nil},
		row{what, "calls of the origin in the busiest second once it is back, / rate", of(record.PhaseBack, func(f record.OutagePhase) float64 { return float64(f.Busiest) / limit }), "%.2f", backCalls})
}

func outageText(list []record.LoadsRow, p record.LoadsParameters) string {
	t := table{head: []string{"", "reads", "current", "stale", "misses", "errors", "not made", "p50, ms", "p99", "longest", "calls of the origin", "busiest second"}, left: 1}
	for _, r := range list {
		for i, f := range r.Phases {
			t.add(phaseNames[i], thousands(f.Reads), thousands(f.Current), thousands(f.Stale), thousands(f.Misses), thousands(f.Errors), thousands(f.Late),
				fmt.Sprintf("%.2f", f.P50MS), fmt.Sprintf("%.1f", f.P99MS), fmt.Sprintf("%.1f", f.MaxMS), thousands(f.Calls), thousands(f.Busiest))
		}
	}
	return fmt.Sprintf("%s keys that were loaded once, with a time to live of %s s, are read %s times a second in all through %d hosts, accepting stale values;\n"+
		"`stale_if_error` is longer than the outage, `limits.rate` is %d on each host (%d in all, and a burst of a tenth). The origin refuses connections\n"+
		"for %d s. \"Not made\" are reads that were due while %s others of the same host had no answer yet.\n\n",
		thousands(int64(p.OutKeys)), fmt.Sprint(float64(p.OutTTL)/1000), thousands(int64(p.Reads)), p.OutHosts, p.Rate, p.Rate*p.OutHosts, p.Down, "64") + t.String()
}
