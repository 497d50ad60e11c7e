package report

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// relateCosts adds each side's cost and rate relative to memcached's.
func relateCosts(f *record.File) error {
	for _, r := range f.Rows {
		base := f.Rows.Of(r.Shape, record.Memcached, r.Figure)
		if len(base) != len(r.Values) || r.Side == record.Memcached {
			continue // the goals tell what is missing
		}
		for i, v := range r.Values {
			f.Rows.Add(r.Shape, r.Side, r.Figure+" relative", v/base[i])
		}
	}
	return nil
}

// plotHits is the figure of the sizes that only the plots have, and hitsPercent that of the others.
const (
	hitsPercent = "hits, %"
	plotHits    = "hits, % (of the plot)"
)

// compareHits compares the store with LRU at the sizes of the tables, in percentage points.
func compareHits(f *record.File) error {
	var sum, n float64
	for _, r := range f.Rows {
		lru := f.Rows.Of(r.Shape, hits.LRU, hitsPercent)
		if r.Side != hits.Segment || r.Figure != hitsPercent || lru == nil {
			continue
		}
		d := spreadOf(r.Values).median - spreadOf(lru).median
		if f.Rows.Add(r.Shape, "", lessLRU, d); strings.HasSuffix(r.Shape, " entries") {
			sum, n = sum+d, n+1
		}
	}
	if n > 0 {
		f.Rows.Add("mean of all at equal entries", "", lessLRU, sum/n)
	}
	return nil
}

// The protocol's times that the model uses, in seconds.
const (
	roundTrip   = 0.6e-3 // of the network in memory, on average
	gatherAfter = 1e-3   // an event later than this after the question is sent alone
	gatherFor   = 0.3e-3 // how long an earlier event waits for others
	followWait  = 0.5    // until an answer without events
	relayEvery  = 0.05   // gossip sends a datagram of events this often
)

// sizeModel is what a node sends, derived from counts of small clusters. Every node
// follows every other node.
type sizeModel struct {
	// Bytes: a question and its answer, one event in it, a poll and its answer.
	answer, event, poll float64
	// The gossip that one node sends, in bytes a second: a constant, and a factor of the
	// logarithm of the number of nodes. quiet is without writes; busy is with events for
	// every datagram.
	quiet, busy [2]float64
}

// answers returns how often per second a node asks a log that grows by perSecond random
// events a second.
func answers(perSecond float64) float64 {
	if perSecond <= 0 {
		return 1 / (roundTrip + followWait)
	}
	none := math.Exp(-perSecond * roundTrip) // no event while the question was on its way
	wait := none * (1 - math.Exp(-perSecond*followWait)) / perSecond
	return 1 / (roundTrip + wait + gatherFor*(1-math.Exp(-perSecond*(roundTrip+gatherAfter))))
}

func (m sizeModel) follows(nodes, rate float64) float64 { return (nodes - 1) * answers(rate/nodes) }

func (m sizeModel) streams(nodes, rate float64) float64 {
	return m.answer*m.follows(nodes, rate) + m.event*rate*(nodes-1)/nodes
}

func (m sizeModel) polls(nodes float64) float64 { return m.poll * (nodes - 1) / followWait }

func (m sizeModel) all(nodes, rate float64) float64 {
	return m.streams(nodes, rate) + m.polls(nodes) + m.gossip(nodes, rate)
}

func (m sizeModel) gossip(nodes, rate float64) float64 {
	// The share of datagrams that carry events.
	events := 1 - math.Exp(-rate/nodes*relayEvery)
	return (1-events)*(m.quiet[0]+m.quiet[1]*math.Log(nodes)) + events*(m.busy[0]+m.busy[1]*math.Log(nodes))
}

// counts are what was counted of one cluster: TestVirtualTraffic's figures by name.
type counts map[string]float64

// countsOf returns the counts of all clusters.
func countsOf(f *record.File) (shapes []string, list []counts) {
	for _, r := range f.Rows {
		if len(shapes) == 0 || shapes[len(shapes)-1] != r.Shape {
			shapes, list = append(shapes, r.Shape), append(list, counts{})
		}
		list[len(list)-1][r.Figure] = spreadOf(r.Values).median
	}
	return shapes, list
}

// fit derives the model's bytes from the counts.
func fit(list []counts) (m sizeModel) {
	var answersEvents, quiet, busy []sample
	top, polls, polled := 0.0, 0.0, 0.0
	for _, c := range list {
		top = max(top, c["rate"])
	}
	for _, c := range list {
		if c["rate"] > 0 {
			// Weighted for relative errors.
			answersEvents = append(answersEvents, sample{c["follows"] / c["followed_bytes"], c["applied"] / c["followed_bytes"], 1})
		}
		gossip := sample{1, math.Log(c["nodes"]), c["gossip_bytes"]}
		switch c["rate"] {
		case 0:
			quiet = append(quiet, gossip)
		case top:
			busy = append(busy, gossip)
		}
		polls, polled = polls+c["polls"], polled+c["polled_bytes"]
	}
	m.answer, m.event = leastSquares(answersEvents)
	m.quiet[0], m.quiet[1] = leastSquares(quiet)
	m.busy[0], m.busy[1] = leastSquares(busy)
	m.poll = polled / polls
	return m
}

// sample is a measured y = a*x1 + b*x2.
type sample struct{ x1, x2, y float64 }

// leastSquares returns a and b.
func leastSquares(list []sample) (a, b float64) {
	var s11, s12, s22, s1y, s2y float64
	for _, s := range list {
		s11, s12, s22 = s11+s.x1*s.x1, s12+s.x1*s.x2, s22+s.x2*s.x2
		s1y, s2y = s1y+s.x1*s.y, s2y+s.x2*s.y
	}
	det := s11*s22 - s12*s12
	return (s1y*s22 - s2y*s12) / det, (s2y*s11 - s1y*s12) / det
}

var modelNodes, modelRates = []float64{3, 5, 10, 20, 50, 100, 200, 500, 1000}, []float64{1, 100, 1000, 10_000, 100_000}

// modelSizes adds what the model says of the same clusters, and of larger ones.
func modelSizes(f *record.File) error {
	shapes, list := countsOf(f)
	sizes, writes := map[float64]bool{}, map[bool]bool{}
	for i, c := range list {
		if c["followed_bytes"] <= 0 || c["polls"] <= 0 || c["gossip_bytes"] <= 0 {
			return fmt.Errorf("%s have no figures: measure them again with \"go run ./cmd/bench sizes\"", shapes[i])
		}
		sizes[c["nodes"]], writes[c["rate"] > 0] = true, true
	}
	if len(sizes) < 2 || len(writes) < 2 {
		return errors.New("the model needs two sizes at least, with writes and without: measure them with \"go run ./cmd/bench sizes\"")
	}
	m, off := fit(list), 0.0
	for i, c := range list {
		add := func(figure string, v float64) { f.Rows.Add(shapes[i], "", figure, v) }
		n, rate := c["nodes"], c["rate"]
		for _, name := range []string{"p50", "p99"} {
			add("delay, ms: "+name, c[name+"_us"]/1000)
		}
		add("answers/s", math.Floor(c["follows"]))
		add("events, kB/s", c["followed_bytes"]/1000)
		if rate > 0 { // else only the watched key causes traffic
			add("answers/s, model", math.Floor(m.follows(n, rate)))
			add("events, kB/s, model", m.streams(n, rate)/1000)
			off = max(off, 100*math.Abs(m.streams(n, rate)/c["followed_bytes"]-1))
		}
		add("polls, kB/s", c["polled_bytes"]/1000)
		add("polls, kB/s, model", m.polls(n)/1000)
		add("gossip, kB/s", c["gossip_bytes"]/1000)
		add("gossip, kB/s, model", m.gossip(n, rate)/1000)
		add("all own after, s", c["start_ms"]/1000)
		add("one more joins in, s", c["join_ms"]/1000)
		add("bytes/s", c["followed_bytes"]+c["polled_bytes"]+c["gossip_bytes"])
	}
	for figure, v := range map[string]float64{"answer": m.answer, "event": m.event, "poll": m.poll, "off": off, "round trip": 1000 * roundTrip, "gather": 1000 * gatherFor} {
		f.Rows.Add("the model", "", figure, v)
	}
	for _, n := range modelNodes {
		add := func(figure string, v float64) { f.Rows.Add(fmt.Sprint(n), "", figure, v) }
		for _, rate := range modelRates {
			add(print("n", rate)+" writes/s", m.all(n, rate)/1000)
		}
		add("of it polls", m.polls(n)/1000)
		add("calls/s at 10,000", math.Floor(m.follows(n, 10_000)+(n-1)/followWait))
		add("at 100,000", math.Floor(m.follows(n, 100_000)+(n-1)/followWait))
	}
	return nil
}
