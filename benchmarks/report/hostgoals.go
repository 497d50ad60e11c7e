package report

import (
	"cmp"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func clusterGoals(p *record.Parameters) []goal {
	const another, kill, moves = "GET of another host's key, ", "a host of three is killed", ".* restart, .*|a host joins .*"
	hops := "p50 / p50 of echo, Unix and TCP together"
	list := []goal{
		ratio(another+"copy here, .*", "requests/s, copies / own keys", record.Copies, "≥ 0.9", record.OwnKeys), // "as fast"
		{another + "its owner answers, 1 × 1", hops, hops, record.OwnersAnswer, nil, "%.2f", "≤ 1.5"},
	}
	for _, side := range []struct{ name, text string }{{record.EmbeddedSide, "sidecar embedded"}, {record.ThroughSocket, "sidecar through its socket"}} {
		list = append(list, ratio(another+"its owner answers, 16 × 1", "requests/s, "+side.text+" / groupcache", side.name, "", record.GroupcacheSide),
			ratio(another+"its owner answers, 16 × 1", "requests/s, "+side.text+" / olric", side.name, "", record.OlricSide))
	}
	for _, f := range []struct{ shape, figure, of, format, target string }{
		{kill, "errors of reads of its keys, through the others", "errors", "%.0f", "≤ 0"},
		{kill, "s until a write of one of its keys succeeds", "first write, s", "%.2f", "≤ 4.5"},
		{kill, "s until a read of it hits again", "first read, s", "%.2f", "≤ 4.5"},
		{kill, fmt.Sprintf("s until %d of its keys are written and read again", p.Probe), "all, s", "%.2f", "≤ 4.5"},
		{moves, "hits in the lowest second, %", "", "%.2f", ""},
		{moves, "hits in all seconds, %", "", "%.2f", ""},
		{moves, "misses of entries that are gone", "", "%.0f", ""},
		{moves, "misses since no owner could be reached in time", "", "%.0f", ""},
		{moves, "errors of reads", "", "%.0f", ""},
	} {
		list = append(list, goal{f.shape, f.figure, cmp.Or(f.of, f.figure), "", nil, f.format, f.target})
	}
	return list
}

func propagationGoals(p *record.Parameters) []goal {
	at := record.Commas(p.Rate) + " invalidations/s, .*"
	above := record.Commas(10*p.Rate) + " invalidations/s, .*"
	fanout := []string{record.BareFanout}
	list := []goal{
		{at, "ms until all have it, p50", "all hosts, p50 ms", record.Sidecar, nil, "%.2f", "≤ 1"},
		{at, "ms until all have it, p99", "all hosts, p99 ms", record.Sidecar, nil, "%.2f", "≤ 5"},
		{at, "p50, in parts of a bare fan-out's", "all hosts, p50 ms", record.Sidecar, fanout, "%.2f", ""},
		{at, "p99, in parts of a bare fan-out's", "all hosts, p99 ms", record.Sidecar, fanout, "%.2f", ""},
		{at, "the same of redis' subscribers, p50", "all hosts, p50 ms", record.Tracking, nil, "%.2f", ""},
		{at, "the same of redis' subscribers, p99", "all hosts, p99 ms", record.Tracking, nil, "%.2f", ""},
		{above, "ms until all have it, longest", "all hosts, max ms", record.Sidecar, nil, "%.1f", fmt.Sprintf("≤ %d", p.Bound)},
		{above, "the same of redis' subscribers, longest", "all hosts, max ms", record.Tracking, nil, "%.1f", ""},
	}
	within := "≤ " + strconv.FormatFloat(float64(p.Bound)/1000, 'f', -1, 64)
	for _, side := range []string{record.HangingHost, record.NoPings, record.Usual, record.Careful} {
		g := goal{"a link hangs .*", "s for which the overwritten value is served: " + side, "old value served for, s", side, nil, "%.2f", ""}
		if side == record.HangingHost {
			g.target = within
		}
		list = append(list, g)
	}
	return list
}

func tlsGoals(*record.Parameters) []goal {
	const plain, tls = "plain", "tls"
	return []goal{
		ratio("answers of the owner, .*", "requests/s, TLS / plain", tls, "", plain),
		{".* invalidations/s, .*", "p50 until a host has it, TLS / plain", "one host, p50 ms", tls, []string{plain}, "%.2f", ""},
	}
}

// The targets of a COMMIT are those of an invalidation, and the 2 ms for which a feed gathers changes.
func changesGoals(*record.Parameters) []goal {
	reader, none := []string{record.BareReader}, []string{record.NoStream}
	return []goal{
		{"a COMMIT, .*", "ms until no host has the old value, p50", "p50 ms", record.Feed, nil, "%.2f", "≤ 3"},
		{"a COMMIT, .*", "ms until no host has the old value, p99", "p99 ms", record.Feed, nil, "%.2f", "≤ 7"},
		{"a COMMIT, .*", "the same, in parts of a bare reader's, p99", "p99 ms", record.Feed, reader, "%.1f", "≤ 4"},
		{".* rows in the log", "rows/s, feed / bare reader", "rows/s", record.Feed, reader, "%.2f", "≥ 0.5"},
		{"pgbench -N", "transactions/s, with a feed / without", "transactions/s", record.Feed, none, "%.2f", "≥ 0.97"},
		{"pgbench -N", "the same, with a bare reader", "transactions/s", record.BareReader, none, "%.2f", ""},
	}
}

func loadsGoals(p *record.Parameters) (list []goal) {
	const crowd, hasty, outage = ".* GETs of one cold key .*", "a caller with .*", "the origin is away .*"
	for _, side := range []string{record.OriginLoads, record.AppsLoad, record.GroupcacheLoads} {
		once := "≤ 1" // for any number of misses of a key
		if side == record.GroupcacheLoads {
			once = ""
		}
		list = append(list,
			goal{crowd, "calls of the origin: " + side, "calls of the origin", side, nil, "%.0f", once},
			goal{crowd, "requests that got no value: " + side, "requests that got no value", side, nil, "%.0f", "≤ 0"},
			goal{crowd, "ms until all are answered: " + side, "ms until all are answered", side, nil, "%.0f", ""})
	}
	list = append(list,
		goal{hasty, "ms until the sidecar answers", "ms until the answer", record.Sidecar, nil, "%.1f", fmt.Sprintf("≤ %d", p.Haste)},
		goal{hasty, "ms until groupcache returns", "ms until the answer", record.Groupcache, nil, "%.1f", ""})
	for _, side := range []string{record.WithOrigin, record.NoEarly, record.AgainWithout} {
		g := ratio("GET hit, .*", "requests/s, "+side+" / without", side, "", record.Without)
		if g.format = "%.3f"; side == record.WithOrigin {
			g.target = "≥ 0.98" // "none measurable": within the figure's variation
		}
		list = append(list, g)
	}
	return append(list,
		goal{outage, "reads without a value, meanwhile", "reads without a value", record.OriginDown, nil, "%.0f", "≤ 0"},
		goal{outage, "reads without a value, once it is back", "reads without a value", record.OriginBack, nil, "%.0f", "≤ 0"},
		goal{outage, "ms for a read meanwhile, p99", "p99, ms", record.OriginDown, nil, "%.1f", ""},
		goal{outage, "ms for a read once it is back, p99", "p99, ms", record.OriginBack, nil, "%.1f", ""},
		// The burst is a tenth of the rate.
		goal{outage, "calls of the origin in the busiest second once it is back, / rate", "busiest second / rate", record.OriginBack, nil, "%.2f", "≤ 1.1"})
}

func overloadGoals(*record.Parameters) []goal {
	const kinds = "small requests|connections|large values|loads"
	scraped := ratio("GET hit, .*", "requests/s, metrics asked for each second / without HTTP", record.Scraped, "≥ 0.97", record.HTTPOff)
	scraped.format = "%.3f"
	return []goal{
		{kinds, "goodput / peak", "served/s", record.Over, []string{record.Near}, "%.2f", "≥ 0.8"},
		{kinds, "p99 of served / p99 at 0.8 ×", "p99 ms", record.Over, []string{record.Calm}, "%.2f", "≤ 5"},
		{kinds, "p99 until BUSY, ms", busyP99, record.Over, nil, "%.1f", "≤ 5"},
		scraped,
	}
}

// lessLRU is the difference of the store's hits and LRU's, in percentage points.
const lessLRU = hits.Segment + " less " + hits.LRU + ", points"

// The targets are for equal entries.
func hitsGoals(*record.Parameters) []goal {
	of := func(shape, target string) goal { return goal{shape, lessLRU, lessLRU, "", nil, "%+.2f", target} }
	return []goal{
		of("mean of all at equal entries", "≥ 4.55"),
		of(".* entries", "≥ −0.5"),
		of(".* bytes", ""),
	}
}
