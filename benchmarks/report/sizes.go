package report

import (
	"fmt"
	"math"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

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

// fit derives the model's bytes from the counts.
func fit(rows []record.SizesRow) (m sizeModel) {
	var answersEvents []sample
	var quiet, busy []sample
	top := 0
	for _, r := range rows {
		top = max(top, r.Rate)
	}
	polls, polled := 0.0, 0.0
	for _, r := range rows {
		if r.Rate > 0 {
			// Weighted for relative errors.
			answersEvents = append(answersEvents, sample{r.Follows / r.Followed, r.Applied / r.Followed, 1})
		}
		gossip := sample{1, math.Log(float64(r.Nodes)), r.Gossip}
		switch r.Rate {
		case 0:
			quiet = append(quiet, gossip)
		case top:
			busy = append(busy, gossip)
		}
		polls, polled = polls+r.Polls, polled+r.Polled
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

func sizesSection(rounds string) (section, error) {
	f, err := record.Read[record.SizesParameters, record.SizesRow](rounds, record.Sizes)
	if err != nil {
		return section{}, err
	}
	sizes, rates := map[int]bool{}, map[bool]bool{}
	for _, r := range f.Rows {
		if r.Followed <= 0 || r.Polls <= 0 || r.Gossip <= 0 {
			return section{}, fmt.Errorf("%d nodes at %d writes a second have no figures: measure them again with \"go run ./cmd/bench sizes\"", r.Nodes, r.Rate)
		}
		sizes[r.Nodes], rates[r.Rate > 0] = true, true
	}
	if len(sizes) < 2 || len(rates) < 2 {
		return section{}, fmt.Errorf("the model needs two sizes at least, with writes and without: measure them with \"go run ./cmd/bench sizes\"")
	}
	m := fit(f.Rows)
	s := section{title: "By the number of hosts", head: f.Head, plots: map[string]plot.Chart{}}
	s.body = sizesText(f.Parameters, m, off(f.Rows, m)) + simulatedTable(f.Rows, m) + modelTable(m)
	s.addSizes(f.Rows, m)
	return s, nil
}

// off returns the largest difference in % between the model's bytes of events and the
// counted bytes, over the rows with writes.
func off(rows []record.SizesRow, m sizeModel) (most float64) {
	for _, r := range rows {
		if r.Rate > 0 {
			most = max(most, 100*math.Abs(m.streams(float64(r.Nodes), float64(r.Rate))/r.Followed-1))
		}
	}
	return most
}

func sizesText(p record.SizesParameters, m sizeModel, off float64) string {
	return fmt.Sprintf("Whole sidecars in one process, in virtual time, on a network in memory whose messages take 0.1 to 0.5 ms. Work of the\n"+
		"processor takes no time here, so the delays are those of the protocol alone, until another node no longer serves its copy. Writes are spread\n"+
		"over all nodes' own keys; %d ms of each were counted. Bytes are what a node sends in a second, headers of TCP and IP not included.\n"+
		"The model has %.0f bytes for asking a log and its answer, %.0f for an event, %.0f for a poll and its answer; how often a log is\n"+
		"asked follows from its rate, the round trip of %.1f ms, and the %.1f ms for which events wait for others.\n"+
		"Its bytes of events differ from those counted by %.0f %% at most, where there are writes.\n\n",
		p.WindowMS, m.answer, m.event, m.poll, 1000*roundTrip, 1000*gatherFor, off)
}

func simulatedTable(rows []record.SizesRow, m sizeModel) string {
	t := table{head: []string{"nodes", "writes/s", "delay, ms: p50", "p99", "answers/s", "model", "events, kB/s", "model", "polls, kB/s", "model", "gossip, kB/s", "model", "all own after, s", "one more joins in, s"}}
	for _, r := range rows {
		n, rate := float64(r.Nodes), float64(r.Rate)
		kb := func(v float64) string { return fmt.Sprintf("%.1f", v/1000) }
		calls, events := thousands(int64(m.follows(n, rate))), kb(m.streams(n, rate))
		if r.Rate == 0 { // only the watched key causes traffic
			calls, events = "–", "–"
		}
		t.add(fmt.Sprint(r.Nodes), thousands(int64(r.Rate)), fmt.Sprintf("%.2f", r.P50US/1000), fmt.Sprintf("%.2f", r.P99US/1000),
			thousands(int64(r.Follows)), calls, kb(r.Followed), events, kb(r.Polled), kb(m.polls(n)), kb(r.Gossip), kb(m.gossip(n, rate)),
			fmt.Sprintf("%.1f", float64(r.StartMS)/1000), fmt.Sprintf("%.1f", float64(r.JoinMS)/1000))
	}
	return "Simulated, and what the model says of the same. At 0 writes a second only the watched key is written:\n\n" + t.String()
}

var modelSizes, modelRates = []int{3, 5, 10, 20, 50, 100, 200, 500, 1000}, []int{1, 100, 1000, 10_000, 100_000}

func modelTable(m sizeModel) string {
	t := table{head: []string{"nodes"}}
	for _, rate := range modelRates {
		t.head = append(t.head, thousands(int64(rate))+" writes/s")
	}
	t.head = append(t.head, "of it polls", "calls/s at 10,000", "at 100,000")
	for _, n := range modelSizes {
		cells := []string{fmt.Sprint(n)}
		for _, rate := range modelRates {
			cells = append(cells, fmt.Sprintf("%.0f", m.all(float64(n), float64(rate))/1000))
		}
		calls := func(rate float64) string {
			return thousands(int64(m.follows(float64(n), rate) + float64(n-1)/followWait))
		}
		t.add(append(cells, fmt.Sprintf("%.0f", m.polls(float64(n))/1000), calls(10_000), calls(100_000))...)
	}
	return "By the model, kB that a node sends in a second; it answers as many calls as it makes.\n" +
		"Beyond the sizes above it is an extrapolation:\n\n" + t.String()
}

func (s *section) addSizes(rows []record.SizesRow, m sizeModel) {
	c := plot.Chart{
		Title: "What a node sends, by the number of nodes",
		Note:  "events, polls and gossip; lines are the model, the separate mark is simulated",
		X:     plot.Axis{Label: "nodes", Log: true},
		Y:     plot.Axis{Label: "bytes a second", Log: true},
	}
	for _, rate := range []int{1000, 10_000, 100_000} {
		line := plot.Series{Name: thousands(int64(rate)) + " writes/s"}
		for _, n := range modelSizes {
			v := m.all(float64(n), float64(rate))
			line.Points = append(line.Points, plot.Point{X: float64(n), Y: v, Low: v, High: v})
		}
		c.Series = append(c.Series, line)
	}
	simulated := plot.Series{Name: "10,000, simulated"}
	for _, r := range rows {
		if r.Rate == 10_000 {
			v := r.Followed + r.Polled + r.Gossip
			simulated.Points = append(simulated.Points, plot.Point{X: float64(r.Nodes), Y: v, Low: v, High: v})
		}
	}
	slices.SortFunc(simulated.Points, func(a, b plot.Point) int { return int(a.X - b.X) })
	if len(simulated.Points) > 0 {
		c.Series = append(c.Series, simulated)
	}
	const name = "sizes-bytes"
	s.plots[name] = c
	s.body += image(name, c.Title)
}
