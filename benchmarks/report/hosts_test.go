package report

import (
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// clusterFile returns one round of each part.
func clusterFile() record.File {
	f := file(record.Cluster)
	f.Parameters = record.Parameters{Keys: 1000, Bound: 2000, Hosts: 5, Probe: 100, Hot: 500}
	for _, depth := range []string{"1", "64"} {
		addSide(&f, "GET of another host's key, copy here, 16 × "+depth, record.OwnKeys, 100)
		addSide(&f, "GET of another host's key, copy here, 16 × "+depth, record.Copies, 80)
		f.Rows.Add("GET of another host's key, copy here, 16 × "+depth, record.Copies, "from copies, %", 99)
	}
	const answers = "GET of another host's key, its owner answers, "
	for side, thousands := range map[string]float64{record.OwnersAnswer: 10, record.EchoUnixSide: 1, record.EchoTCPSide: 1} {
		addSide(&f, answers+"1 × 1", side, thousands)
	}
	f.Rows.Add(answers+"1 × 1", record.OwnersAnswer, "p50 / p50 of echo, Unix and TCP together", 1.75)
	for side, thousands := range map[string]float64{record.ThroughSocket: 40, record.EmbeddedSide: 90, record.GroupcacheSide: 20, record.OlricSide: 50} {
		addSide(&f, answers+"16 × 1", side, thousands)
	}
	for name, v := range map[string]float64{"reads": 1000, "hits": 10, "errors": 2, "first write, s": 3, "first read, s": 3.1, "all, s": 5} {
		f.Rows.Add("a host of three is killed", "", name, v)
	}
	for shape, hits := range map[string]float64{"5 hosts restart, one after the other": 40, "a host joins 5 others": 97} {
		for name, v := range map[string]float64{
			"hits in the lowest second, %": hits, "hits in all seconds, %": (200 + hits) / 3, "misses of entries that are gone": 98 - hits,
			"misses since no owner could be reached in time": 2, "errors of reads": 0,
		} {
			f.Rows.Add(shape, "", name, v)
		}
		f.Rows.Add(shape, record.BySecond, "reads", 100, 100, 100)
		f.Rows.Add(shape, record.BySecond, "hits", 100, hits, 100)
		f.Rows.Add(shape, "host-1", "asked to end, s", 1.1)
		f.Rows.Add(shape, "host-1", "in, s", 1.9)
		f.Rows.Add(shape, "host-1", "hits until then, lowest second, %", hits)
	}
	return f
}

func TestSeveralHosts(t *testing.T) {
	f := clusterFile()
	files := page(t, f)
	has(t, string(files[Page]),
		"| GET of another host's key, copy here, 16 × 1 | requests/s, copies / own keys | 0.80 | 0.80 | 0.80 | ≥ 0.9 | **missed by 0.1** |",
		"| GET of another host's key, its owner answers, 1 × 1 | p50 / p50 of echo, Unix and TCP together | 1.75 | 1.75 | 1.75 | ≤ 1.5 | **missed by 0.25** |",
		"| requests/s, sidecar embedded / groupcache | 4.50 | 4.50 | 4.50 | – | – |",
		"| requests/s, sidecar through its socket / olric | 0.80 | 0.80 | 0.80 | – | – |",
		"| a host of three is killed | errors of reads of its keys, through the others | 2 | 2 | 2 | ≤ 0 | **missed by 2** |",
		"| a host of three is killed | s until 100 of its keys are written and read again | 5.00 | 5.00 | 5.00 | ≤ 4.5 | **missed by 0.5** |",
		"| 5 hosts restart, one after the other | hits in the lowest second, % | 40.00 |",
		"| a host joins 5 others | hits in all seconds, % | 99.00 |",
		"| a host joins 5 others | misses since no owner could be reached in time | 2 | 2 | 2 | – | – |",
		"| a host joins 5 others | misses of entries that are gone | 1 | 1 | 1 | – | – |",
		"| 5 hosts restart, one after the other | host-1 | 1.10 | – | – | 1.90 | 40.00 |",
		"were answered from a copy",
		"![Hit ratio while hosts come and go](plots/cluster-moves.svg)",
	)
	if len(files[PlotsDir+"/cluster-moves.svg"]) == 0 {
		t.Error("there is no plot")
	}
	fails(t, f, `there are 0 rounds of requests/s of "olric, embedded"`, func(r *record.Row) bool { return r.Side == record.OlricSide })
	fails(t, f, `a host of three is killed: there are 0 rounds of errors of ""`, func(r *record.Row) bool { return strings.HasSuffix(r.Shape, "killed") && r.Figure == "errors" })
	f.Rows = slices.DeleteFunc(f.Rows, func(r record.Row) bool {
		return strings.Contains(r.Shape, "restart") || strings.Contains(r.Shape, "joins")
	})
	want := `there are no rounds of ".* restart, .*|a host joins .*": measure them again with "go run ./cmd/bench cluster"`
	if _, err := Text(f); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a part is missing: got error %v, want one with %q", err, want)
	}
}

func TestInvalidations(t *testing.T) {
	f := file(record.Propagation)
	f.Parameters = record.Parameters{Rate: 1000, Hosts: 5, Bound: 2000, Seconds: 10, HangFor: 12}
	for _, rate := range []int{100, 1000, 10000} {
		shape := record.Commas(rate) + " invalidations/s, 5 hosts"
		for _, s := range []struct {
			name                    string
			one, all, noCopy, early float64
		}{{record.Sidecar, 0.4, 1.2, 25, 0}, {record.Tracking, 0.01, 0.02, 0, 50}, {record.BareFanout, 0.2, 0.8, 0, 0}} {
			f.Rows.Add(shape, s.name, "made/s", float64(rate))
			addDelays(&f, shape, s.name, "one host, ", "ms", s.one)
			addDelays(&f, shape, s.name, "all hosts, ", "ms", s.all)
			f.Rows.Add(shape, s.name, "no copy, %", s.noCopy)
			f.Rows.Add(shape, s.name, "early, %", s.early)
		}
		f.Rows.Add(shape, record.Sidecar, "gaps", 0)
		f.Rows.Add(shape, record.Sidecar, "resets", 2)
		f.Rows.Add(shape, record.Sidecar, "polls missed", 0)
	}
	for side, old := range map[string]float64{record.HangingHost: 1.9, record.NoPings: 11.99, record.Usual: 11, record.Careful: 1.5} {
		f.Rows.Add("a link hangs for 12 s", side, "old value served for, s", old)
	}
	has(t, text(t, f),
		"| 1,000 invalidations/s, 5 hosts | ms until all have it, p50 | 1.20 | 1.20 | 1.20 | ≤ 1 | **missed by 0.2** |",
		"| 1,000 invalidations/s, 5 hosts | the same of redis' subscribers, p99 | 0.10 | 0.10 | 0.10 | – | – |",
		"| 1,000 invalidations/s, 5 hosts | p50, in parts of a bare fan-out's | 1.50 | 1.50 | 1.50 | – | – |",
		"| 10,000 invalidations/s, 5 hosts | bare fan-out | 10,000 | 0.20 | 1.00 | 1.80 | 0.80 | 4.00 | 7.20 | – | – | – |",
		"| 10,000 invalidations/s, 5 hosts | ms until all have it, longest | 10.8 | 10.8 | 10.8 | ≤ 2000 | met |",
		"25.00 % had\nno copy",
		"0.00 % of those of the sidecar and 50.00 % of those of redis",
		"| 10,000 invalidations/s, 5 hosts | sidecar | 10,000 | 0.40 | 2.00 | 3.60 | 1.20 | 6.00 | 10.80 | 0 | 2 | 0 |",
		"is served: sidecar, of a host whose links hang | 1.90 | 1.90 | 1.90 | ≤ 2 | met |",
		"is served: redis, a client that does not ping | 11.99 | 11.99 | 11.99 | – | – |",
	)
	fails(t, f, `1,000 invalidations/s, 5 hosts: there are 0 rounds of all hosts, p50 ms of "redis, client tracking"`,
		func(r *record.Row) bool { return strings.HasPrefix(r.Shape, "1,000 ") && r.Side == record.Tracking })
	fails(t, f, `a link hangs for 12 s: there are 0 rounds of old value served for, s of "redis, rueidis with shorter times"`,
		func(r *record.Row) bool { return r.Side == record.Careful })
}

// TestLoads checks the figures of the section on loads, and the error for each missing
// side.
func TestLoads(t *testing.T) {
	f := file(record.Loads)
	f.Parameters = record.Parameters{Hosts: 5, Conns: 20, Depth: 100, OriginMS: 50, Haste: 10, OutHosts: 3, Rate: 50, Down: 60}
	const crowd, hasty, served, outage = "10,000 GETs of one cold key at once, 5 hosts", "a caller with 10 ms waits for a load of 50 ms", "GET hit, 16 × 64", "the origin is away for 60 s"
	for round := range 3 {
		for _, s := range []struct {
			side                       string
			calls, others, status, all float64
		}{{record.OriginLoads, 1, 0, 0, float64(90 + round)}, {record.AppsLoad, float64(1 + round), 1, float64(wire.Busy), 100}, {record.GroupcacheLoads, 1, 0, 0, 80}} {
			for name, v := range map[string]float64{
				"calls of the origin": s.calls, "requests": 10_000, "requests that got no value": s.others, "status": s.status, "ms until all are answered": s.all,
			} {
				f.Rows.Add(crowd, s.side, name, v)
			}
		}
	}
	f.Rows.Add(hasty, record.Sidecar, "ms until the answer", 9.1)
	f.Rows.Add(hasty, record.Groupcache, "ms until the answer", 45.2)
	for side, thousands := range map[string]float64{record.Without: 100, record.WithOrigin: 90, record.NoEarly: 95, record.AgainWithout: 100} {
		addSide(&f, served, side, thousands)
	}
	for side, v := range map[string][2]float64{record.OriginUp: {0, 0}, record.OriginDown: {3, 0}, record.OriginBack: {0, 2}} {
		for name, v := range map[string]float64{"reads": 12, "p99, ms": 1, "reads without a value": v[0], "busiest second / rate": v[1]} {
			f.Rows.Add(outage, side, name, v)
		}
	}
	has(t, text(t, f),
		"| 10,000 GETs of one cold key at once, 5 hosts | calls of the origin: sidecar, its origin | 1 | 1 | 1 | ≤ 1 | met |",
		"| 10,000 GETs of one cold key at once, 5 hosts | ms until all are answered: sidecar, its origin | 91 | 90 | 92 | – | – |",
		"calls of the origin: sidecar, LEASE and FILL by the apps | 2 | 1 | 3 | ≤ 1 | **missed by 1** |",
		"| sidecar, LEASE and FILL by the apps | 3 | 6 | 30,000 | 3 | BUSY |",
		"| ms until the sidecar answers | 9.1 | 9.1 | 9.1 | ≤ 10 | met |",
		"| GET hit, 16 × 64 | requests/s, namespace with an origin / without | 0.900 | 0.900 | 0.900 | ≥ 0.98 | **missed by 0.08** |",
		"| the origin is away for 60 s | reads without a value, meanwhile | 3 | 3 | 3 | ≤ 0 | **missed by 3** |",
		"busiest second once it is back, / rate | 2.00 | 2.00 | 2.00 | ≤ 1.1 | **missed by 0.9** |",
	)
	for _, c := range []struct{ shape, side, want string }{
		{crowd, record.AppsLoad, `there are 2 rounds of calls of the origin of "sidecar, LEASE and FILL by the apps", want 3`},
		{hasty, record.Groupcache, `there are 0 rounds of ms until the answer of "groupcache", want 1`},
		{served, record.Without, `there are 0 rounds of requests/s of "without", want 1`},
		{outage, record.OriginBack, `there are 0 rounds of reads without a value of "it is back", want 1`},
	} {
		fails(t, f, c.shape+": "+c.want, func(r *record.Row) bool { return r.Shape == c.shape && r.Side == c.side })
	}
}

// TestOverload checks the figures of the section on overload.
func TestOverload(t *testing.T) {
	f := file(record.Overload)
	f.Parameters.TimeoutMS = map[string]int{"requests": 100}
	for round := range 3 {
		for _, p := range []struct {
			shape, side       string
			served, p99, busy float64
		}{
			{"loads", record.Near, 1000, 0.02, 0}, {"loads", record.Calm, 800, 1, 0}, {"loads", record.Over, 700 + float64(100*round), 5, 50},
			{"small requests", record.Near, 1000, 0.02, 0}, {"small requests", record.Calm, 800, 1, 0}, {"small requests", record.Over, 500, 7, 0},
		} {
			for name, v := range map[string]float64{
				"offered/s": 3000, "served/s": p.served, "p50 ms": p.p99 * 50 / 99, "p99 ms": p.p99, "BUSY %": p.busy, "late %": 0, "held back %": 0, "lag p99 ms": 0.1,
			} {
				f.Rows.Add(p.shape, p.side, name, v)
			}
			if p.busy > 0 {
				f.Rows.Add(p.shape, p.side, "BUSY p99 ms", 5.94)
			}
		}
		addSide(&f, "GET hit, 16 × 64", record.Scraped, 96)
		addSide(&f, "GET hit, 16 × 64", record.HTTPOff, 100)
	}
	all := text(t, f)
	has(t, all,
		"| small requests at 3 × saturation | goodput / peak | 0.50 | 0.50 | 0.50 | ≥ 0.8 | **missed by 0.3** |",
		"| small requests at 3 × saturation | p99 of served / p99 at 0.8 × | 7.00 | 7.00 | 7.00 | ≤ 5 | **missed by 2** |",
		"| loads at 3 × saturation | goodput / peak | 0.80 | 0.70 | 0.90 | ≥ 0.8 | met |",
		"| loads at 3 × saturation | p99 until BUSY, ms | 5.9 | 5.9 | 5.9 | ≤ 5 | **missed by 0.94** |",
		"| GET hit, 16 × 64 | requests/s, metrics asked for each second / without HTTP | 0.960 | 0.960 | 0.960 | ≥ 0.97 | **missed by 0.01** |",
		"| loads | 3 × | 3000 | 800 | 2.53 | 5.00 | 50 | 5.94 | 0 | 0 | 0.10 |")
	if strings.Contains(all, "small requests at 3 × saturation | p99 until BUSY") {
		t.Error("a kind of which none is refused has a row for refusals")
	}
	fails(t, f, `loads: there are 2 rounds of p99 ms of "0.8 ×", want 3`, func(r *record.Row) bool { return r.Shape == "loads" && r.Side == record.Calm })
}
