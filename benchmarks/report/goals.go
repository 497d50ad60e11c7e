package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// goal is a figure that stands on the page beside its target: of one side, or its ratio to that of other sides within
// each round.
type goal struct {
	shape  string // a regular expression for the loads
	figure string // as the page calls it
	of     string // the figure of the rows
	side   string
	others []string // a ratio to the best of them; none: the figure itself
	format string
	target string // as "≥ 0.9"; empty: none
}

// result is a goal with its figures.
type result struct {
	what string // the load
	goal
	spread
}

func (r *result) print(v float64) string { return print(r.format, v) }

// spread is the median, least and most of one figure over the rounds.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return spread{median, v[0], v[len(v)-1]}
}

// resultsTable formats results as a table.
func resultsTable(list []result) string {
	t := table{head: []string{"what", "figure", "median", "min", "max", "target", ""}, left: 2}
	for _, r := range list {
		t.add(r.what, r.figure, r.print(r.median), r.print(r.least), r.print(r.most), cmp.Or(r.target, "–"), verdict(r.target, r.median))
	}
	return t.String()
}

// meets compares a figure with a target.
func meets(target string, v float64) bool {
	sign, limit := bound(target)
	switch sign {
	case "≥":
		return v >= limit
	case ">":
		return v > limit
	case "≤":
		return v <= limit
	}
	return v < limit
}

func bound(target string) (sign string, limit float64) {
	sign, text, _ := strings.Cut(target, " ")
	limit, err := strconv.ParseFloat(strings.ReplaceAll(text, "−", "-"), 64)
	if err != nil {
		panic(fmt.Sprintf("target %q: %v", target, err)) // goals are constants
	}
	return sign, limit
}

// verdict returns "met", or by how much a value misses the target.
func verdict(target string, v float64) string {
	switch {
	case target == "":
		return "–"
	case meets(target, v):
		return "met"
	}
	_, limit := bound(target)
	return fmt.Sprintf("**missed by %.2g**", math.Abs(v-limit))
}

// compare returns the results of a measurement: of each load, those of all its goals.
func compare(f *record.File) (list []result, err error) {
	goals := goalsOf[f.What]
	if goals == nil {
		return nil, nil
	}
	all := goals(&f.Parameters)
	for _, shape := range shapesOf(f.Rows, exactly(".*")) {
		have := map[string]bool{}
		for _, g := range all {
			if have[g.figure] || !exactly(g.shape).MatchString(shape) || optional[g.of] && f.Rows.Of(shape, g.side, g.of) == nil {
				continue
			}
			have[g.figure] = true
			v, err := g.values(f, shape)
			if err != nil {
				return nil, err
			}
			what := shape
			if g.side == record.Over {
				what += " at " + record.Over + " saturation"
			}
			list = append(list, result{what, g, spreadOf(v)})
		}
	}
	return list, nil
}

// busyP99 is a figure of loads of which some requests are refused.
const busyP99 = "BUSY p99 ms"

// optional are the figures that some of the matching loads do not have.
var optional = map[string]bool{busyP99: true, lessLRU: true}

// values returns the goal's figure in each round under a load.
func (g *goal) values(f *record.File, shape string) (v []float64, err error) {
	rounds := 0
	for _, r := range f.Rows {
		if r.Shape == shape && r.Figure == g.of {
			rounds = max(rounds, len(r.Values))
		}
	}
	of := func(side string) []float64 {
		list := f.Rows.Of(shape, side, g.of)
		if err == nil && (len(list) < rounds || rounds == 0) {
			err = fmt.Errorf("%s: there are %d rounds of %s of %q, want %d: measure it again with \"go run ./cmd/bench %s\"",
				shape, len(list), g.of, side, max(1, rounds), f.What)
		}
		return append(list[:len(list):len(list)], make([]float64, rounds-len(list))...)
	}
	v = slices.Clone(of(g.side))
	best := make([]float64, len(v))
	for _, side := range g.others {
		for i, o := range of(side) {
			best[i] = max(best[i], o)
		}
	}
	for i := range v {
		if len(g.others) > 0 {
			v[i] /= best[i]
		}
	}
	return v, err
}

// ratio is a goal that compares the throughput of two sides, or of one with the best of others.
func ratio(shape, figure, side, target string, others ...string) goal {
	return goal{shape, figure, "requests/s", side, others, "%.2f", target}
}

// goalsOf are the goals of each measurement, with the project's targets. The page has them in this order for each
// load. Of goals for one figure the first that a load matches counts.
var goalsOf = map[string]func(p *record.Parameters) []goal{
	record.Socket: socketGoals, record.Endpoint: endpointGoals, record.Cost: costGoals, record.Clients: clientsGoals, record.Languages: languagesGoals,
	record.Memory: memoryGoals, record.GC: gcGoals, record.Idle: idleGoals, record.Cluster: clusterGoals, record.Propagation: propagationGoals,
	record.TLS: tlsGoals, record.Changes: changesGoals, record.Loads: loadsGoals, record.Overload: overloadGoals, record.Hits: hitsGoals,
}

func socketGoals(*record.Parameters) []goal {
	const of, redis, memcached = record.Sidecar, record.Redis, record.Memcached
	better := "sidecar / better of redis and memcached"
	return []goal{
		ratio("GET hit, (1|16) × 1", "sidecar / echo", of, "≥ 0.9", record.Echo),
		ratio("GET hit, (1|16) × 64", "sidecar / echo", of, "", record.Echo),
		ratio("GET hit, 1 × 64", better, of, "", redis, memcached),
		ratio("GET hit, 16 × 64", better, of, "≥ 2", redis, memcached),
		ratio("GET hit, (1|16) × 64", "sidecar / redis", of, "", redis),
		ratio("GET hit, (1|16) × 1|SET, .*", "sidecar / redis", of, "> 1", redis),
		ratio("GET hit, (1|16) × 1|SET, .*", "sidecar / memcached", of, "> 1", memcached),
		{"(GET hit|SET), (1|16) × 1", "p99, sidecar / memcached", "p99 µs", of, []string{memcached}, "%.2f", "≤ 1"},
	}
}

func endpointGoals(*record.Parameters) (list []goal) {
	list = append(list, ratio("GET hits, .*", "endpoint, text / memcached, text", record.EndpointText, "", record.MemcachedText))
	for _, side := range []string{record.EndpointText, record.EndpointMeta} {
		better := side + " / better of memcached's text and meta"
		list = append(list,
			ratio("(GET hit|SET), .*", side+" / own protocol", side, "≥ 0.95", record.OwnProtocol),
			ratio("(GET hit|SET), .* × 1", better, side, "", record.MemcachedText, record.MemcachedMeta),
			ratio("(GET hit|SET), .* × 64", better, side, "≥ 1", record.MemcachedText, record.MemcachedMeta))
	}
	return list
}

func costGoals(*record.Parameters) []goal {
	const spin = "(, beside processes that spin)?"
	bare, memcached := []string{record.Bare}, []string{record.Memcached}
	cpu := func(shape, figure, target string, other []string) goal {
		return goal{shape, figure, "CPU µs", record.EndpointText, other, "%.2f", target}
	}
	return []goal{
		cpu("..., 1 × 1.*", "CPU, endpoint / bare", "≤ 1.15", bare),
		cpu("..., (4|16) × 1.*", "CPU, endpoint / memcached", "≤ 1", memcached),
		cpu("..., 64 × 1.*", "CPU, endpoint / memcached", "≤ 1.1", memcached),
		cpu("..., (4|16|64) × 1", "CPU, endpoint / bare", "≤ 1.25", bare),
		ratio("..., 1 × 1"+spin, "requests/s, endpoint / memcached", record.EndpointText, "≥ 0.9", record.Memcached),
		ratio("..., (16|64) × 1"+spin, "requests/s, endpoint / memcached", record.EndpointText, "≥ 1", record.Memcached),
		{".*/s.*", "p99, endpoint / memcached", "p99 µs", record.EndpointText, memcached, "%.2f", "≤ 1.15"},
	}
}

func clientsGoals(*record.Parameters) []goal {
	ratio := func(shape, figure, side, format, target string, others ...string) goal {
		return goal{shape, figure, "k/s", side, others, format, target}
	}
	const one, first, best = "GET hits, 1 goroutine", "first .*", "over the socket / the best of the others"
	sockets := []string{record.Gomemcache, record.GoRedis, record.RueidisPlain}
	return []goal{
		ratio(one, "over the socket / "+record.Gomemcache, record.OursSocket, "%.2f", "≥ 1", record.Gomemcache),
		ratio(one, "over the socket / "+record.GoRedis, record.OursSocket, "%.2f", "≥ 1", record.GoRedis),
		ratio(one, "shared memory / the better of memcached and redis", record.OursShared, "%.0f", "≥ 50", sockets...),
		{one, "shared memory, ns a hit", "ns a hit", record.OursShared, nil, "%.0f", "≤ 250"},
		ratio("GET hits, 16 .*", best, record.OursSocket, "%.2f", "≥ 1.2", sockets...),
		ratio("GET hits, 64 .*", best, record.OursSocket, "%.2f", "≥ 2", sockets...),
		ratio(first, "shared memory / "+record.RueidisNear, record.OursShared, "%.2f", "> 1", record.RueidisNear),
		ratio(first, "shared memory / "+record.OursNear, record.OursShared, "%.2f", "> 1", record.OursNear),
	}
}

func languagesGoals(*record.Parameters) (list []goal) {
	add := func(shape, of, figure, target string, others ...string) {
		for _, o := range others {
			list = append(list, goal{shape, figure + ", over the socket / " + o, of, record.OursSocket, []string{o}, "%.2f", target})
		}
	}
	redis := []string{record.RedisPy, record.RedisPyParser, record.RedisPyOne}
	add("Python: GET, one .*", "µs a call", "time of a call", "≤ 1", append(redis, record.Pymemcache)...)
	add("Python: SET, one .*", "µs a call", "time of a call", "", append(redis, record.Pymemcache)...)
	add("Python: .* threads", "calls/s", "calls/s", "", record.RedisPy, record.Pymemcache)
	add("Python: .* in flight", "calls/s", "calls/s", "≥ 2", redis...)
	add("Node: GET, one .*", "calls/s", "calls/s", "≥ 1", record.NodeRedis, record.Ioredis)
	add("Node: SET, one .*", "calls/s", "calls/s", "", record.NodeRedis, record.Ioredis)
	add("Node: .* in flight", "calls/s", "calls/s", "> 1", record.NodeRedis, record.Ioredis, record.IoredisAuto)
	// A hit that asks no server, beside a cache that knows of no other process, and beside a server.
	hit := func(shape, ours, local, server, target string) {
		list = append(list,
			goal{shape, ours + ", µs", "µs a call", ours, nil, "%.2f", target},
			goal{shape, "time of a call, " + ours + " / " + local, "µs a call", ours, []string{local}, "%.1f", ""},
			goal{shape, "time of a call, " + server + " / " + ours, "µs a call", server, []string{ours}, "%.0f", ""})
	}
	hit("Python: hit in the process", record.OursNear, record.LRUCache, record.RedisPy, "≤ 2")
	hit("Python: hit in the process", record.OursShared, record.LRUCache, record.RedisPy, "≤ 2")
	hit("Python: hit .* without the extension", record.OursShared, record.LRUCache, record.RedisPy, "≤ 10")
	hit("Node: hit in the process", record.OursNear, record.MapInNode, record.NodeRedis, "")
	return list
}

func memoryGoals(*record.Parameters) []goal {
	const all, beyond = ".* entries .*", "resident beyond keys and values, B an entry"
	return []goal{
		{all, "resident memory, sidecar / memcached", "filled, MiB", record.Sidecar, []string{record.Memcached}, "%.3f", "≤ 0.85"},
		{all, "sidecar's overhead by its own account, B an entry", "overhead by its own account, B an entry", record.Sidecar, nil, "%.1f", "≤ 48"},
		{all, "sidecar: " + beyond, beyond, record.Sidecar, nil, "%.1f", ""},
		{all, "memcached: " + beyond, beyond, record.Memcached, nil, "%.1f", ""},
	}
}

func gcGoals(p *record.Parameters) []goal {
	few, many := record.Commas(p.Few), record.Commas(p.Keys)
	side := func(with, of string) string { return with + " entries, GETs of " + of + " keys" }
	base := []string{side(few, few)}
	return []goal{
		{".*", "collector's share of CPU, %", "collector's share of CPU, %", record.Sidecar, nil, "%.3f", "< 1"},
		{".*", "longest pause, ms", "longest pause, ms", record.Sidecar, nil, "%.3f", "< 1"},
		{".*", "p99 of GET of all keys / p99 with " + few + " entries", "p99 µs", side(many, many), base, "%.2f", ""},
		// "Unchanged": within the variation of the figure on a quiet machine.
		{".*", "p99 of GET of " + few + " of the keys / p99 with " + few + " entries", "p99 µs", side(many, few), base, "%.2f", "≤ 1.1"},
	}
}

func idleGoals(p *record.Parameters) (list []goal) {
	for _, after := range []string{"one GET", fmt.Sprintf("a batch of %d GETs", p.Pipeline)} {
		of := "KiB a connection after " + after
		list = append(list, goal{".*", of + ", sidecar", of, record.Sidecar, nil, "%.1f", "≤ 12"})
		for _, other := range []string{record.Redis, record.Memcached} {
			list = append(list, goal{".*", "memory after " + after + ", sidecar / " + other, of, record.Sidecar, []string{other}, "%.2f", ""})
		}
	}
	return list
}
