package report

import (
	"fmt"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// clusterPart is the rounds of one part, with one shape of load if the part has shapes.
type clusterPart []record.ClusterRow

func (c clusterPart) of(figure func(r record.ClusterRow) float64) spread {
	var v []float64
	for _, r := range c {
		v = append(v, figure(r))
	}
	return spreadOf(v)
}

// ratio returns one side's throughput relative to another's.
func (c clusterPart) ratio(side, other string) spread {
	return c.of(func(r record.ClusterRow) float64 { return r.Sides[side].PerSecond() / r.Sides[other].PerSecond() })
}

// shape returns the part's load.
func (c clusterPart) shape() string { return fmt.Sprintf("%d × %d", c[0].Conns, c[0].Depth) }

// clusterSides are the sides of each part, and their names on the page.
var clusterSides = map[string][]struct{ name, text string }{
	record.Copies:  {{record.Owned, "own keys"}, {record.Copied, "copies of another host's"}},
	record.Latency: {{record.Sidecar, "sidecar, its owner's answer"}, {record.Echo, "echo, Unix socket"}, {record.EchoTCP, "echo, TCP"}},
	record.Remote: {{record.Sidecar, "sidecar, through its socket"}, {record.Embedded, "sidecar, embedded"},
		{record.Groupcache, "groupcache, embedded"}, {record.Olric, "olric, embedded"}},
}

func clusterSection(rounds string) (section, error) {
	f, err := record.Read[record.ClusterParameters, record.ClusterRow](rounds, record.Cluster)
	if err != nil {
		return section{}, err
	}
	parts := map[string]clusterPart{}
	for _, r := range f.Rows {
		for _, s := range clusterSides[r.Part] {
			if side := r.Sides[s.name]; side.Requests == 0 || side.Seconds <= 0 || len(side.LatencyUS) != len(record.Percentiles) {
				return section{}, fmt.Errorf("round %d of %s has no figures of %s: measure it again with \"go run ./cmd/bench cluster\"", r.Round, r.Part, s.name)
			}
		}
		kill, moves := r.Part == record.Kill, r.Part == record.Restart || r.Part == record.Join
		if kill != (r.Kill != nil) || moves != (r.Moves != nil) {
			return section{}, fmt.Errorf("round %d of %s has not the figures of its part: measure it again with \"go run ./cmd/bench cluster\"", r.Round, r.Part)
		}
		key := r.Part
		if r.Part == record.Copies {
			key = copiesAt(r.Depth)
		}
		parts[key] = append(parts[key], r)
	}
	one, many := parts[copiesAt(1)], parts[copiesAt(64)]
	for _, part := range []clusterPart{one, many, parts[record.Latency], parts[record.Remote], parts[record.Kill], parts[record.Restart], parts[record.Join]} {
		if len(part) == 0 {
			return section{}, fmt.Errorf("some parts have no rounds: measure them again with \"go run ./cmd/bench cluster\"")
		}
	}
	s := section{title: "Several hosts", head: f.Head, plots: map[string]plot.Chart{}}
	for _, c := range []clusterPart{one, many} {
		s.rows = append(s.rows, row{"GET of another host's key, copy here, " + c.shape(), "requests/s, copies / own keys", c.ratio(record.Copied, record.Owned), "%.2f", copyOfOwned})
	}
	s.rows = append(s.rows, latencyRow(parts[record.Latency]))
	s.rows = append(s.rows, remoteRows(parts[record.Remote])...)
	s.rows = append(s.rows, killRows(parts[record.Kill], f.Parameters)...)
	for _, part := range []string{record.Restart, record.Join} {
		s.rows = append(s.rows, movesRows(parts[part], f.Parameters)...)
	}
	s.body = clusterText(f.Parameters, one, many, parts[record.Remote]) +
		"Absolute figures, as context:\n\n" + clusterTable(one, many, parts[record.Latency], parts[record.Remote]) +
		killTable(parts[record.Kill]) + movesTable(parts[record.Restart], parts[record.Join])
	s.addMoves(parts[record.Restart][0].Moves, parts[record.Join][0].Moves)
	return s, nil
}

func copiesAt(depth int) string { return fmt.Sprint(record.Copies, depth) }

func latencyRow(c clusterPart) row {
	return row{"GET of another host's key, its owner answers, " + c.shape(), "p50 / p50 of echo, Unix and TCP together", c.of(func(r record.ClusterRow) float64 {
		return r.Sides[record.Sidecar].At(50) / (r.Sides[record.Echo].At(50) + r.Sides[record.EchoTCP].At(50))
	}), "%.2f", hopsOfEcho}
}

func remoteRows(c clusterPart) (rows []row) {
	what := "GET of another host's key, its owner answers, " + c.shape()
	for _, of := range []struct{ side, text string }{{record.Embedded, "sidecar embedded"}, {record.Sidecar, "sidecar through its socket"}} {
		for _, other := range []string{record.Groupcache, record.Olric} {
			rows = append(rows, row{what, "requests/s, " + of.text + " / " + other, c.ratio(of.side, other), "%.2f", nil})
		}
	}
	return rows
}

func killRows(c clusterPart, p record.ClusterParameters) []row {
	const what = "a host of three is killed"
	seconds := func(figure func(*record.KillRow) float64) spread {
		return c.of(func(r record.ClusterRow) float64 { return figure(r.Kill) / 1000 })
	}
	return []row{
		{what, "errors of reads of its keys, through the others", c.of(func(r record.ClusterRow) float64 { return float64(r.Kill.Errors) }), "%.0f", killErrors},
		{what, "s until a write of one of its keys succeeds", seconds(func(k *record.KillRow) float64 { return k.WriteMS }), "%.2f", killSeconds},
		{what, "s until a read of it hits again", seconds(func(k *record.KillRow) float64 { return k.HitMS }), "%.2f", killSeconds},
		{what, fmt.Sprintf("s until %d of its keys are written and read again", p.Probe), seconds(func(k *record.KillRow) float64 { return k.AllMS }), "%.2f", killSeconds},
	}
}

// movesText describes what happens to the hosts.
func movesText(part string, p record.ClusterParameters) string {
	if part == record.Restart {
		return fmt.Sprintf("%d hosts restart, one after the other", p.Hosts)
	}
	return fmt.Sprintf("a host joins %d others", p.Hosts)
}

func movesRows(c clusterPart, p record.ClusterParameters) []row {
	what := movesText(c[0].Part, p)
	percent := func(which func(lowest, mean float64) float64) spread {
		return c.of(func(r record.ClusterRow) float64 { return 100 * which(r.Moves.Ratios()) })
	}
	count := func(of func(w record.Window) int64) spread {
		return c.of(func(r record.ClusterRow) float64 {
			n := int64(0)
			for _, w := range r.Moves.Windows {
				n += of(w)
			}
			return float64(n)
		})
	}
	return []row{
		{what, "hits in the lowest second, %", percent(func(lowest, _ float64) float64 { return lowest }), "%.2f", nil},
		{what, "hits in all seconds, %", percent(func(_, mean float64) float64 { return mean }), "%.2f", nil},
		{what, "misses of entries that are gone", count(func(w record.Window) int64 { return w.Reads - w.Hits - w.Errors - w.Degraded }), "%.0f", nil},
		{what, "misses since no owner could be reached in time", count(func(w record.Window) int64 { return w.Degraded }), "%.0f", nil},
		{what, "errors of reads", count(func(w record.Window) int64 { return w.Errors }), "%.0f", nil},
	}
}

func clusterText(p record.ClusterParameters, one, many, remote clusterPart) string {
	share := func(c clusterPart, side string) string {
		return fmt.Sprintf("%.2f %%", 100*c.of(func(r record.ClusterRow) float64 { return r.Copied[side] }).median)
	}
	return fmt.Sprintf("Each host is a process on loopback. Loads are connections × requests in flight on each. Keys of %d bytes, values of %d; %d rounds,\n"+
		"in each of which every side had %d turns of %d ms. Of the reads of %s keys of another host, %s and %s were answered from a copy\n"+
		"by the sidecar's own count, at one request in flight and at 64. Of the reads of the embedded\n"+
		"sidecar, which go round %s keys, %s were. `max_staleness` was %s s.\n\n",
		p.KeySize, p.ValueSize, p.Rounds, p.Turns.Turns, p.TurnMS, thousands(int64(p.Hot)), share(one, record.Copied), share(many, record.Copied),
		thousands(int64(p.Keys)), share(remote, record.Embedded), strings.TrimSuffix(fmt.Sprintf("%.1f", float64(p.Bound)/1000), ".0"))
}

// clusterTable returns the sides' own figures.
func clusterTable(parts ...clusterPart) string {
	t := table{head: []string{"load", "side", "requests/s", "min", "max", "p50 µs", "p99 µs", "p99.9 µs"}, left: 2}
	for _, c := range parts {
		for _, s := range clusterSides[c[0].Part] {
			at := func(p float64) string {
				return fmt.Sprintf("%.0f", c.of(func(r record.ClusterRow) float64 { return r.Sides[s.name].At(p) }).median)
			}
			v := c.of(func(r record.ClusterRow) float64 { return r.Sides[s.name].PerSecond() })
			t.add("GET, "+c.shape(), s.text, rate(v.median), rate(v.least), rate(v.most), at(50), at(99), at(99.9))
		}
	}
	return t.String()
}

func killTable(c clusterPart) string {
	t := table{head: []string{"kill", "reads", "hits", "errors", "slowest read, ms", "writes refused", "first write, s", "first read, s", "all, s"}, left: 1}
	for _, r := range c {
		k := r.Kill
		s := func(ms float64) string { return fmt.Sprintf("%.2f", ms/1000) }
		t.add(fmt.Sprint(r.Round), thousands(k.Reads), thousands(k.Hits), thousands(k.Errors), fmt.Sprintf("%.0f", k.SlowestMS), thousands(k.Refused), s(k.WriteMS), s(k.HitMS), s(k.AllMS))
	}
	return "Each kill, from `kill -9` until the last key was read again; a read that finds nothing is no error:\n\n" + t.String()
}

func movesTable(parts ...clusterPart) string {
	t := table{head: []string{"host", "what", "asked to end, s", "ended, s", "serves, s", "in, s", "hits until then, lowest second, %"}, left: 2}
	for _, c := range parts {
		for _, r := range c {
			movesOf(&t, r)
		}
	}
	return "Each host that came or went, in seconds since the reads began:\n\n" + t.String()
}

// movesOf adds a line for each host that came or went.
func movesOf(t *table, r record.ClusterRow) {
	at := map[string]string{}
	begun := int64(-1)
	for _, e := range r.Moves.Events {
		if begun < 0 {
			begun = e.MS
		}
		at[e.What] = fmt.Sprintf("%.2f", float64(e.MS)/1000)
		if e.What != record.In {
			continue
		}
		lowest := 1.0
		for i, w := range r.Moves.Windows {
			if first, last := int64(i)*1000, int64(i+1)*1000; last > begun && first < e.MS {
				lowest = min(lowest, w.Ratio())
			}
		}
		cell := func(what string) string {
			if at[what] == "" {
				return "–"
			}
			return at[what]
		}
		t.add(e.Host, r.Part, cell(record.Asked), cell(record.Ended), cell(record.Serves), cell(record.In), fmt.Sprintf("%.2f", 100*lowest))
		at, begun = map[string]string{}, -1
	}
}

// addMoves plots the hit ratio of each second.
func (s *section) addMoves(restart, join *record.Moves) {
	c := plot.Chart{
		Title: "Hit ratio while hosts come and go",
		Note:  "reads that hit, of those that ended in each second, through the hosts that serve",
		X:     plot.Axis{Label: "seconds since the reads began"},
		Y:     plot.Axis{Label: "hit ratio, %"},
	}
	for _, line := range []struct {
		name string
		m    *record.Moves
	}{{"rolling restart", restart}, {"join", join}} {
		series := plot.Series{Name: line.name}
		for i, w := range line.m.Windows {
			v := 100 * w.Ratio()
			series.Points = append(series.Points, plot.Point{X: float64(i) + 0.5, Y: v, Low: v, High: v})
		}
		c.Series = append(c.Series, series)
	}
	const name = "cluster-moves"
	s.plots[name] = c
	s.body += image(name, c.Title)
}
