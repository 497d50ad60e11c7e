package report

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// place is one trace at one size.
type place struct {
	trace, unit string
	size        int64
	sweep       bool
	ratios      map[string][]float64 // %, by policy, one value per round
}

func (p place) ratio(policy string) spread { return spreadOf(p.ratios[policy]) }

func hitsSection(rounds string) (section, error) {
	f, err := record.Read[record.HitsParameters, record.HitsRow](rounds, record.Hits)
	if err != nil {
		return section{}, err
	}
	var places []place
	about := table{head: []string{"trace", "requests", "keys"}, left: 1}
	for _, r := range f.Rows {
		if r.Requests == 0 {
			return section{}, fmt.Errorf("a row of %s has no requests: measure it again with \"go run ./cmd/bench hits\"", r.Trace)
		}
		i := slices.IndexFunc(places, func(p place) bool { return p.trace == r.Trace && p.unit == r.Unit && p.size == r.Size })
		if i < 0 {
			if len(places) == 0 || places[len(places)-1].trace != r.Trace {
				about.add(r.Trace, thousands(r.Requests), thousands(r.Unique))
			}
			i = len(places)
			places = append(places, place{r.Trace, r.Unit, r.Size, r.Sweep, map[string][]float64{}})
		}
		places[i].ratios[r.Policy] = append(places[i].ratios[r.Policy], 100*float64(r.Hits)/float64(r.Requests))
	}
	s := section{title: "Hit ratios", head: f.Head, plots: map[string]plot.Chart{}}
	s.rows = hitsRows(places)
	s.body = fmt.Sprintf("Every request is a get, a miss is followed by a set; the start is included. The store is driven through its public API, with ghosts\n"+
		"and TTLs. LRU and l2/segment give the same result each time; ristretto and otter choose at random: median of %d rounds, (least to most).\n\n", f.Parameters.Rounds) + about.String()
	for _, unit := range []string{record.Entries, record.Bytes} {
		s.body += hitsTable(places, unit)
	}
	var traces []string
	for _, p := range places {
		if !slices.Contains(traces, p.trace) {
			traces = append(traces, p.trace)
		}
	}
	for _, trace := range traces {
		s.addHits(trace, places)
	}
	return s, nil
}

// hitsRows compares the store with LRU at the sizes of the tables, in percentage points.
func hitsRows(places []place) (rows []row) {
	const figure = hits.Segment + " less " + hits.LRU + ", points"
	var sum, n float64
	for _, p := range places {
		if p.sweep || len(p.ratios[hits.Segment]) == 0 || len(p.ratios[hits.LRU]) == 0 {
			continue
		}
		d := p.ratio(hits.Segment).median - p.ratio(hits.LRU).median
		r := row{fmt.Sprintf("%s, %s %s", p.trace, thousands(p.size), p.unit), figure, spread{d, d, d}, "%+.2f", hitsOfLRU}
		if p.trace == busyTrace && p.size == busySize {
			r.target = hitsOfLRUBusy
		}
		if p.unit == record.Bytes {
			r.target = nil // the target is for equal entries
		} else {
			sum, n = sum+d, n+1
		}
		rows = append(rows, r)
	}
	if n > 0 {
		rows = append(rows, row{"mean of all at equal entries", figure, spread{sum / n, sum / n, sum / n}, "%+.2f", hitsMean})
	}
	return rows
}

// hitsTable returns the ratios at the sizes of the tables.
func hitsTable(places []place, unit string) string {
	t := table{head: []string{"trace", unit}, left: 1}
	for _, p := range hits.Policies {
		t.head = append(t.head, p.Name+" %")
	}
	for _, p := range places {
		if p.sweep || p.unit != unit {
			continue
		}
		cells := []string{p.trace, thousands(p.size)}
		for _, policy := range hits.Policies {
			v := p.ratio(policy.Name)
			cell := fmt.Sprintf("%.2f", v.median)
			if v.least != v.most {
				cell += fmt.Sprintf(" (%.2f to %.2f)", v.least, v.most)
			}
			cells = append(cells, cell)
		}
		t.add(cells...)
	}
	if len(t.rows) == 0 {
		return ""
	}
	return "At equal " + unit + ":\n\n" + t.String()
}

// addHits plots a trace's hit ratios against the size.
func (s *section) addHits(trace string, places []place) {
	c := plot.Chart{
		Title: "Hit ratio against size, " + trace,
		Note:  "a get of each request, a set after each miss; one replay a point, or the median of the rounds",
		X:     plot.Axis{Label: "size of the cache, entries", Log: true},
		Y:     plot.Axis{Label: "hit ratio, %"},
	}
	var here []place
	for _, p := range places {
		if p.trace == trace && p.unit == record.Entries {
			here = append(here, p)
		}
	}
	if len(here) < 2 {
		return
	}
	slices.SortFunc(here, func(a, b place) int { return cmp.Compare(a.size, b.size) })
	for _, policy := range plotted {
		line := plot.Series{Name: policy}
		for _, p := range here {
			v := p.ratio(policy)
			line.Points = append(line.Points, plot.Point{X: float64(p.size), Y: v.median, Low: v.least, High: v.most})
		}
		c.Series = append(c.Series, line)
	}
	name := "hits-" + trace
	s.plots[name] = c
	s.body += image(name, c.Title)
}

// plotted are the policies in the order of the plots' colours.
var plotted = []string{hits.Segment, "ristretto", "otter", hits.LRU}
