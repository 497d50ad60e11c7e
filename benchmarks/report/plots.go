package report

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/plot"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// chartsOf draw the plots of the measurements that have some.
var chartsOf = map[string]func(rows record.Rows, to map[string]plot.Chart){
	record.Socket: socketCharts, record.Cluster: movesChart, record.Sizes: sizesChart, record.Hits: hitsCharts,
}

// charts returns the plots of a measurement by name.
func charts(f *record.File) map[string]plot.Chart {
	c := map[string]plot.Chart{}
	if draw := chartsOf[f.What]; draw != nil {
		draw(f.Rows, c)
	}
	return c
}

// point is a median with its spread.
func point(x float64, values []float64) plot.Point {
	s := spreadOf(values)
	return plot.Point{X: x, Y: s.median, Low: s.least, High: s.most}
}

// socketSides are the servers in the order of the plots' colours.
var socketSides = []string{record.Sidecar, record.Redis, record.Memcached, record.Echo}

// socketCharts plots the sweeps, over connections at one request in flight and over requests in flight at 16
// connections, and the distributions of the batches' latency.
func socketCharts(rows record.Rows, to map[string]plot.Chart) {
	sweep := func(name, shape string, c plot.Chart) {
		for x := 1; len(rows.Of(fmt.Sprintf(shape, x), record.Sidecar, "requests/s")) > 0 || x < 16; x *= 2 {
			c.X.Ticks = append(c.X.Ticks, plot.Tick{Value: float64(x), Label: strconv.Itoa(x)})
		}
		c.Series = socketSeries(rows, c.X.Ticks, func(at float64) (string, string) { return fmt.Sprintf(shape, int(at)), "requests/s" })
		if len(c.Series[0].Points) > 1 {
			to[name] = c
		}
	}
	sweep("throughput-connections", "GET hit, %d × 1", plot.Chart{
		Title: "Throughput against connections",
		Note:  "GET hits, one request in flight on each connection; median of the rounds, band: min to max",
		X:     plot.Axis{Label: "connections", Log: true},
		Y:     plot.Axis{Label: "requests a second"},
	})
	sweep("throughput-pipeline", "GET hit, 16 × %d", plot.Chart{
		Title: "Throughput against requests in flight",
		Note:  "GET hits, 16 connections; median of the rounds, band: min to max",
		X:     plot.Axis{Label: "requests in flight on each connection", Log: true},
		Y:     plot.Axis{Label: "requests a second", Log: true},
	})
	latencyChart(rows, 1, "one request", to)
	latencyChart(rows, 64, "a batch of 64 requests", to)
}

// socketSeries returns a line for each server, with the figure that of names for each tick.
func socketSeries(rows record.Rows, ticks []plot.Tick, of func(at float64) (shape, figure string)) (list []plot.Series) {
	for _, server := range socketSides {
		line := plot.Series{Name: server}
		for _, t := range ticks {
			shape, figure := of(t.Value)
			if v := rows.Of(shape, server, figure); v != nil {
				line.Points = append(line.Points, point(t.Value, v))
			}
		}
		list = append(list, line)
	}
	return list
}

func latencyChart(rows record.Rows, depth int, inFlight string, to map[string]plot.Chart) {
	c := plot.Chart{
		Title: "Latency of " + inFlight + ", 16 connections",
		Note:  "GET hits; median of the rounds, band: min to max",
		X:     plot.Axis{Label: "percentile of batches"},
		Y:     plot.Axis{Label: "latency", Log: true, Format: duration},
	}
	for i, p := range record.Percentiles {
		c.X.Ticks = append(c.X.Ticks, plot.Tick{Value: float64(i), Label: strings.TrimPrefix(p.Name, "p")})
	}
	c.Series = socketSeries(rows, c.X.Ticks, func(at float64) (string, string) {
		return fmt.Sprintf("GET hit, 16 × %d", depth), record.Percentiles[int(at)].Name + " µs"
	})
	if len(c.Series[0].Points) > 0 {
		to[fmt.Sprintf("latency-16x%d", depth)] = c
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

// movesChart plots the hit ratio of each second.
func movesChart(rows record.Rows, to map[string]plot.Chart) {
	c := plot.Chart{
		Title: "Hit ratio while hosts come and go",
		Note:  "reads that hit, of those that ended in each second, through the hosts that serve",
		X:     plot.Axis{Label: "seconds since the reads began"},
		Y:     plot.Axis{Label: "hit ratio, %"},
	}
	for _, r := range rows {
		if r.Side != record.BySecond || r.Figure != "hits" {
			continue
		}
		line := plot.Series{Name: "rolling restart"}
		if strings.HasPrefix(r.Shape, "a host joins") {
			line.Name = "join"
		}
		reads := rows.Of(r.Shape, record.BySecond, "reads")
		for i, hits := range r.Values {
			line.Points = append(line.Points, point(float64(i)+0.5, []float64{100 * hits / max(reads[i], 1)}))
		}
		c.Series = append(c.Series, line)
	}
	if len(c.Series) > 0 {
		to["cluster-moves"] = c
	}
}

// sizesChart plots what a node sends, by the model, and as it was simulated.
func sizesChart(rows record.Rows, to map[string]plot.Chart) {
	c := plot.Chart{
		Title: "What a node sends, by the number of nodes",
		Note:  "events, polls and gossip; lines are the model, the separate mark is simulated",
		X:     plot.Axis{Label: "nodes", Log: true},
		Y:     plot.Axis{Label: "bytes a second", Log: true},
	}
	for _, rate := range []string{"1,000 writes/s", "10,000 writes/s", "100,000 writes/s"} {
		line := plot.Series{Name: rate}
		for _, n := range modelNodes {
			line.Points = append(line.Points, point(n, []float64{1000 * rows.Of(fmt.Sprint(n), "", rate)[0]}))
		}
		c.Series = append(c.Series, line)
	}
	simulated := plot.Series{Name: "10,000, simulated"}
	for _, r := range rows {
		if r.Figure == "bytes/s" && strings.HasSuffix(r.Shape, " 10,000 writes/s") {
			simulated.Points = append(simulated.Points, point(rows.Of(r.Shape, "", "nodes")[0], r.Values))
		}
	}
	byX(simulated.Points)
	if len(simulated.Points) > 0 {
		c.Series = append(c.Series, simulated)
	}
	to["sizes-bytes"] = c
}

// hitsCharts plots each trace's hit ratios against the size, its policies in the order of the colours.
func hitsCharts(rows record.Rows, to map[string]plot.Chart) {
	for _, r := range rows {
		if r.Figure != "requests" {
			continue
		}
		trace := r.Shape
		c := plot.Chart{
			Title: "Hit ratio against size, " + trace,
			Note:  "a get of each request, a set after each miss; one replay a point, or the median of the rounds",
			X:     plot.Axis{Label: "size of the cache, entries", Log: true},
			Y:     plot.Axis{Label: "hit ratio, %"},
		}
		for _, policy := range []string{hits.Segment, "ristretto", "otter", hits.LRU} {
			line := plot.Series{Name: policy}
			for _, r := range rows {
				size, ok := strings.CutPrefix(r.Shape, trace+", ")
				size, entries := strings.CutSuffix(size, " entries")
				n, err := strconv.ParseFloat(strings.ReplaceAll(size, ",", ""), 64)
				if ok && entries && err == nil && r.Side == policy {
					line.Points = append(line.Points, point(n, r.Values))
				}
			}
			byX(line.Points)
			c.Series = append(c.Series, line)
		}
		if len(c.Series[0].Points) > 1 {
			to["hits-"+trace] = c
		}
	}
}

func byX(list []plot.Point) {
	slices.SortFunc(list, func(a, b plot.Point) int { return cmp.Compare(a.X, b.X) })
}
