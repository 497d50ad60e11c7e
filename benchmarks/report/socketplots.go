package report

import (
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// addThroughput plots the sweeps: over connections at one request in flight, and over
// requests in flight at 16 connections.
func (s *section) addThroughput(loads []load) {
	s.sweep(loads, "throughput-connections", plot.Chart{
		Title: "Throughput against connections",
		Note:  "GET hits, one request in flight on each connection; median of the rounds, band: min to max",
		X:     plot.Axis{Label: "connections", Log: true},
		Y:     plot.Axis{Label: "requests a second"},
	}, func(l load) (x int, ok bool) { return l.conns, l.op == "GET" && l.pipeline == 1 })
	s.sweep(loads, "throughput-pipeline", plot.Chart{
		Title: "Throughput against requests in flight",
		Note:  "GET hits, 16 connections; median of the rounds, band: min to max",
		X:     plot.Axis{Label: "requests in flight on each connection", Log: true},
		Y:     plot.Axis{Label: "requests a second", Log: true},
	}, func(l load) (x int, ok bool) { return l.pipeline, l.op == "GET" && l.conns == 16 })
}

// sweep plots the throughput of the loads that choose accepts.
func (s *section) sweep(loads []load, name string, c plot.Chart, choose func(load) (x int, ok bool)) {
	places := map[int]load{}
	most := 0
	for _, l := range loads {
		if x, ok := choose(l); ok {
			places[x] = l
			most = max(most, x)
		}
	}
	if len(places) < 2 {
		return
	}
	for x := 1; x <= most; x *= 2 {
		c.X.Ticks = append(c.X.Ticks, plot.Tick{At: float64(x), Label: strconv.Itoa(x)})
	}
	for _, server := range socketSides {
		line := plot.Series{Name: server}
		for x := 1; x <= most; x++ {
			if l, ok := places[x]; ok {
				v := l.figures(perSecond(server))
				line.Points = append(line.Points, plot.Point{X: float64(x), Y: v.median, Low: v.least, High: v.most})
			}
		}
		c.Series = append(c.Series, line)
	}
	s.plots[name] = c
	s.body += image(name, c.Title)
}

// addLatency plots the distributions of the batches' latency.
func (s *section) addLatency(loads []load) {
	for _, l := range loads {
		if l.op != "GET" || l.conns != 16 || l.pipeline != 1 && l.pipeline != 64 {
			continue
		}
		inFlight := "one request"
		if l.pipeline > 1 {
			inFlight = fmt.Sprintf("a batch of %d requests", l.pipeline)
		}
		c := plot.Chart{
			Title: fmt.Sprintf("Latency of %s, %d connections", inFlight, l.conns),
			Note:  "GET hits; median of the rounds, band: min to max",
			X:     plot.Axis{Label: "percentile of batches"},
			Y:     plot.Axis{Label: "latency", Log: true, Format: duration},
		}
		for i, p := range record.Percentiles {
			label := strconv.FormatFloat(p, 'f', -1, 64)
			if p == 100 {
				label = "max"
			}
			c.X.Ticks = append(c.X.Ticks, plot.Tick{At: float64(i), Label: label})
		}
		for _, server := range socketSides {
			line := plot.Series{Name: server}
			for i, p := range record.Percentiles {
				v := l.figures(func(s map[string]record.Side) float64 { return s[server].At(p) })
				line.Points = append(line.Points, plot.Point{X: float64(i), Y: v.median, Low: v.least, High: v.most})
			}
			c.Series = append(c.Series, line)
		}
		name := fmt.Sprintf("latency-%dx%d", l.conns, l.pipeline)
		s.plots[name] = c
		s.body += image(name, c.Title)
	}
}

// duration formats microseconds, in ms from 1000 µs on.
func duration(us float64) string {
	unit := " µs"
	if us >= 1000 {
		us, unit = us/1000, " ms"
	}
	return strconv.FormatFloat(us, 'g', 4, 64) + unit
}
