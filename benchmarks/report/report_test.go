package report

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/benchmarks/hits"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// TestCommittedResults derives the page and the plots from the committed rounds, and
// compares them with the committed files.
func TestCommittedResults(t *testing.T) {
	const dir = ".."
	files, err := Derive(dir)
	if err != nil {
		t.Fatal(err)
	}
	const remedy = "run \"go run ./cmd/bench report\" in benchmarks and look at the difference"
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Errorf("%v: %s", err, remedy)
		} else if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the rounds come to: %s", name, remedy)
		}
	}
	plots, err := filepath.Glob(filepath.Join(dir, PlotsDir, "*"))
	if err != nil || len(plots) != len(files)-1 {
		t.Errorf("got %d files in %s, error %v, want %d: %s", len(plots), PlotsDir, err, len(files)-1, remedy)
	}
	for _, s := range sections {
		if _, err := s.derive(filepath.Join(dir, RoundsDir)); err != nil {
			t.Error(err)
		}
	}
}

func head(what string) record.Head {
	return record.Head{What: what, Command: "go run ./cmd/bench " + what, Commit: "abc", Date: time.Unix(0, 0), Versions: map[string]string{"go": "1.26"}}
}

// side returns a side with the given thousands of requests a second.
func side(thousands int64) record.Side {
	s := record.Side{Requests: thousands * 1000, Seconds: 1}
	for i := range record.Percentiles {
		s.LatencyUS = append(s.LatencyUS, float64(10*(i+1)))
	}
	return s
}

func writeSocket(t *testing.T, dir string, change func(*record.SocketRow)) {
	t.Helper()
	f := record.File[record.SocketParameters, record.SocketRow]{Head: head(record.Socket)}
	for round := range 3 {
		for _, op := range []string{"GET", "SET"} {
			for _, shape := range tabled {
				r := record.SocketRow{Round: round + 1, Op: op, Conns: shape[0], Pipeline: shape[1], Sides: map[string]record.Side{
					record.Sidecar: side(int64(100 + 10*round)), record.Redis: side(100), record.Memcached: side(50), record.Echo: side(200),
				}}
				change(&r)
				f.Rows = append(f.Rows, r)
			}
		}
	}
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
}

// derive derives the page and the plots from the rounds in a folder.
func derive(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files, err := Derive(dir)
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// has checks that a page, or a section of it, has all the texts.
func has(t *testing.T, page string, texts ...string) {
	t.Helper()
	for _, want := range texts {
		if !strings.Contains(page, want) {
			t.Errorf("there is no %q in\n%s", want, page)
		}
	}
}

func TestWinsAndLossesStandInTheSameTable(t *testing.T) {
	dir := t.TempDir()
	writeSocket(t, dir, func(*record.SocketRow) {})
	page := string(derive(t, dir)[Page])
	has(t, page,
		"| GET hit, 1 × 1 | sidecar / echo | 0.55 | 0.50 | 0.60 | ≥ 0.9 | **missed by 0.35** |",
		"| GET hit, 1 × 1 | sidecar / redis | 1.10 | 1.00 | 1.20 | > 1 | met |",
		"| GET hit, 16 × 64 | sidecar / better of redis and memcached | 1.10 | 1.00 | 1.20 | ≥ 2 | **missed by 0.9** |",
		"| SET, 16 × 64 | sidecar / memcached | 2.20 | 2.00 | 2.40 | > 1 | met |",
		"16 of 19 targets are met; missed are:",
		"| GET hit, 1 × 1 | sidecar | 110,000 | 100,000 | 120,000 | 10 | 50 | 70 |",
		"![Throughput against connections](plots/throughput-connections.svg)",
		"Versions: go 1.26.",
	)
	if again, err := Derive(dir); err != nil || string(again[Page]) != page {
		t.Errorf("the second page differs, error %v", err)
	}
	if text, err := Section(dir, record.Socket); err != nil || !strings.Contains(page, strings.TrimSpace(text)) {
		t.Errorf("the section is not what the page has of it, error %v", err)
	}
}

func TestDeriveErrors(t *testing.T) {
	dir := t.TempDir()
	if _, err := Derive(dir); err == nil || !strings.Contains(err.Error(), "go run ./cmd/bench all") {
		t.Errorf("no rounds: got error %v", err)
	}
	writeSocket(t, dir, func(r *record.SocketRow) {
		if r.Round == 2 && r.Op == "SET" {
			delete(r.Sides, record.Redis)
		}
	})
	if _, err := Derive(dir); err == nil || !strings.Contains(err.Error(), "round 2 of SET, 1 × 1 has no figures of redis") {
		t.Errorf("a side is missing: got error %v", err)
	}
	if _, err := Section(dir, "speed"); err == nil {
		t.Error("something that is not measured has a section")
	}
}

func TestHitsAreHeldAgainstLRU(t *testing.T) {
	dir := t.TempDir()
	f := record.File[record.HitsParameters, record.HitsRow]{Head: head(record.Hits)}
	add := func(trace, unit string, size, segment, lru int64) {
		for _, p := range hits.Policies {
			n := lru
			if p.Name == hits.Segment {
				n = segment
			}
			f.Rows = append(f.Rows, record.HitsRow{Round: 1, Trace: trace, Requests: 1000, Unique: 100, Unit: unit, Size: size, Policy: p.Name, Hits: n})
		}
	}
	add(busyTrace, record.Entries, busySize, 480, 500)
	add("a", record.Entries, 2000, 485, 500)
	add("a", record.Entries, 9000, 600, 500)
	add("a", record.Bytes, 1<<30, 100, 500)
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	page := string(derive(t, dir)[Page])
	has(t, page,
		"| cache2k-orm-busy, 760 entries | l2/segment less LRU, points | −2.00 | −2.00 | −2.00 | ≥ −2.5 | met |",
		"| a, 2,000 entries | l2/segment less LRU, points | −1.50 | −1.50 | −1.50 | ≥ −1 | **missed by 0.5** |",
		"| a, 1,073,741,824 bytes | l2/segment less LRU, points | −40.00 | −40.00 | −40.00 | – | – |",
		"| mean of all at equal entries | l2/segment less LRU, points | +2.17 | +2.17 | +2.17 | ≥ 2 | met |",
		"| a | 9,000 | 50.00 | 50.00 | 50.00 | 60.00 |",
		"At equal bytes:",
	)
}

// clusterFile returns one round of each part.
func clusterFile() record.File[record.ClusterParameters, record.ClusterRow] {
	f := record.File[record.ClusterParameters, record.ClusterRow]{Head: head(record.Cluster)}
	f.Parameters = record.ClusterParameters{Data: record.Data{Keys: 1000}, Bound: 2000, Hosts: 5, Probe: 100, Hot: 500}
	slow := side(10)
	for i := range slow.LatencyUS {
		slow.LatencyUS[i] = 35
	}
	moves := func(hits int64) *record.Moves {
		return &record.Moves{
			Windows: []record.Window{{Reads: 100, Hits: 100}, {Reads: 100, Hits: hits, Degraded: 2}, {Reads: 100, Hits: 100}},
			Events:  []record.Event{{MS: 1100, Host: "host-1", What: record.Asked}, {MS: 1900, Host: "host-1", What: record.In}},
		}
	}
	for _, depth := range []int{1, 64} {
		f.Rows = append(f.Rows, record.ClusterRow{Part: record.Copies, Round: 1, Conns: 16, Depth: depth, Copied: map[string]float64{record.Copied: 0.99},
			Sides: map[string]record.Side{record.Owned: side(100), record.Copied: side(80)}})
	}
	f.Rows = append(f.Rows,
		record.ClusterRow{Part: record.Latency, Round: 1, Conns: 1, Depth: 1, Sides: map[string]record.Side{record.Sidecar: slow, record.Echo: side(1), record.EchoTCP: side(1)}},
		record.ClusterRow{Part: record.Remote, Round: 1, Conns: 16, Depth: 1, Sides: map[string]record.Side{
			record.Sidecar: side(40), record.Embedded: side(90), record.Groupcache: side(20), record.Olric: side(50)}},
		record.ClusterRow{Part: record.Kill, Round: 1, Kill: &record.KillRow{Reads: 1000, Hits: 10, Errors: 2, WriteMS: 3000, HitMS: 3100, AllMS: 5000}},
		record.ClusterRow{Part: record.Restart, Round: 1, Moves: moves(40)}, record.ClusterRow{Part: record.Join, Round: 1, Moves: moves(97)})
	return f
}

func TestSeveralHosts(t *testing.T) {
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), clusterFile()); err != nil {
		t.Fatal(err)
	}
	files := derive(t, dir)
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
		"| host-1 | restart | 1.10 | – | – | 1.90 | 40.00 |",
		"were answered from a copy",
		"![Hit ratio while hosts come and go](plots/cluster-moves.svg)",
	)
	if len(files[PlotsDir+"/cluster-moves.svg"]) == 0 {
		t.Error("there is no plot")
	}
}

func TestSeveralHostsErrors(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*record.File[record.ClusterParameters, record.ClusterRow])
		want   string
	}{
		{"a side is missing", func(f *record.File[record.ClusterParameters, record.ClusterRow]) {
			delete(f.Rows[3].Sides, record.Olric)
		}, "round 1 of remote has no figures of olric"},
		{"a kill without figures", func(f *record.File[record.ClusterParameters, record.ClusterRow]) { f.Rows[4].Kill = nil }, "round 1 of kill has not the figures of its part"},
		{"a part is missing", func(f *record.File[record.ClusterParameters, record.ClusterRow]) { f.Rows = f.Rows[:6] }, "some parts have no rounds"},
	} {
		dir := t.TempDir()
		f := clusterFile()
		c.change(&f)
		if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
			t.Fatal(err)
		}
		if _, err := Derive(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got error %v, want one with %q", c.name, err, c.want)
		}
	}
}

func TestInvalidations(t *testing.T) {
	delays := func(us float64) (list []float64) {
		for i := range record.Percentiles {
			list = append(list, us*float64(i+1))
		}
		return list
	}
	file := func() record.File[record.PropagationParameters, record.PropagationRow] {
		f := record.File[record.PropagationParameters, record.PropagationRow]{Head: head(record.Propagation)}
		f.Parameters = record.PropagationParameters{Rate: 1000, Hosts: 5, Bound: 2000, Seconds: 10, HangFor: 12}
		for _, rate := range []int{100, 1000, 10000} {
			f.Rows = append(f.Rows, record.PropagationRow{Part: record.Stream, Round: 1, Rate: rate, Streams: map[string]record.StreamSide{
				record.Sidecar: {Writes: int64(rate), Seconds: 1, Probes: 5, Pairs: 15, NoCopy: 5, PairUS: delays(400), AllUS: delays(1200), Resets: 2},
				record.Redis:   {Writes: int64(rate), Seconds: 1, Probes: 5, Pairs: 20, Early: 10, PairUS: delays(10), AllUS: delays(20)},
				record.Fanout:  {Writes: int64(rate), Seconds: 1, Probes: 5, Pairs: 20, PairUS: delays(200), AllUS: delays(800)},
			}})
		}
		f.Rows = append(f.Rows, record.PropagationRow{Part: record.Hang, Round: 1, Hangs: map[string]record.HangSide{
			record.Sidecar: {Reads: 10, Old: 3, OldMS: 1900}, record.NoPings: {Reads: 10, Old: 10, OldMS: 11990},
			record.Usual: {Reads: 10, Old: 9, OldMS: 11000}, record.Careful: {Reads: 10, Old: 3, OldMS: 1500},
		}})
		return f
	}
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), file()); err != nil {
		t.Fatal(err)
	}
	text, err := Section(dir, record.Propagation)
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"| 1,000 invalidations/s, 5 hosts | ms until all have it, p50 | 1.20 | 1.20 | 1.20 | ≤ 1 | **missed by 0.2** |",
		"| 1,000 invalidations/s, 5 hosts | the same of redis' subscribers, p99 | 0.10 | 0.10 | 0.10 | – | – |",
		"| 1,000 invalidations/s, 5 hosts | p50, in parts of a bare fan-out's | 1.50 | 1.50 | 1.50 | – | – |",
		"| 10,000 | bare fan-out | 10,000 | 0.20 | 1.00 | 1.80 | 0.80 | 4.00 | 7.20 | – | – | – |",
		"| 10,000 invalidations/s, 5 hosts | ms until all have it, longest | 10.8 | 10.8 | 10.8 | ≤ 2000 | met |",
		"25.00 % had\nno copy",
		"0.00 % of those of the sidecar and 50.00 % of those of redis",
		"| 10,000 | sidecar | 10,000 | 0.40 | 2.00 | 3.60 | 1.20 | 6.00 | 10.80 | 0 | 2 | 0 |",
		"is served: sidecar, of a host whose links hang | 1.90 | 1.90 | 1.90 | ≤ 2 | met |",
		"is served: redis, a client that does not ping | 11.99 | 11.99 | 11.99 | – | – |",
	)
	for _, c := range []struct {
		change func(*record.File[record.PropagationParameters, record.PropagationRow])
		want   string
	}{
		{func(f *record.File[record.PropagationParameters, record.PropagationRow]) {
			delete(f.Rows[1].Streams, record.Redis)
		}, "round 1 at 1000 writes a second has no figures of redis"},
		{func(f *record.File[record.PropagationParameters, record.PropagationRow]) {
			delete(f.Rows[3].Hangs, record.Careful)
		}, "hang 1 has no figures of careful"},
	} {
		f := file()
		c.change(&f)
		if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
			t.Fatal(err)
		}
		if _, err := Section(dir, record.Propagation); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got error %v, want one with %q", err, c.want)
		}
	}
}

// TestLoads checks the figures of the section on loads, and the error for each missing
// side.
func TestLoads(t *testing.T) {
	file := func() record.File[record.LoadsParameters, record.LoadsRow] {
		f := record.File[record.LoadsParameters, record.LoadsRow]{Head: head(record.Loads)}
		f.Parameters = record.LoadsParameters{Hosts: 5, Conns: 20, Depth: 100, Takes: 50, Haste: 10, OutHosts: 3, Rate: 50, Down: 60}
		for round := range 3 {
			f.Rows = append(f.Rows, record.LoadsRow{Part: record.Crowd, Round: round + 1, Crowds: map[string]record.CrowdSide{
				record.Sidecar: {Calls: 1, Answered: 10000, AllMS: float64(90 + round)}, record.Apps: {Calls: int64(1 + round), Answered: 9999, Others: 1, Status: "BUSY", AllMS: 100},
				record.Groupcache: {Calls: 1, Answered: 10000, AllMS: 80},
			}})
		}
		f.Rows = append(f.Rows,
			record.LoadsRow{Part: record.Hasty, Round: 1, LeftMS: map[string]float64{record.Sidecar: 9.1, record.Groupcache: 45.2}},
			record.LoadsRow{Part: record.Served, Round: 1, Conns: 16, Pipeline: 64, Sides: map[string]record.Side{record.Plain: side(100), record.WithOrigin: side(90), record.NoEarly: side(95), record.Again: side(100)}},
			record.LoadsRow{Part: record.Outage, Round: 1, Phases: []record.OutagePhase{{}, {Reads: 12, Stale: 9, Misses: 1, Errors: 2}, {Reads: 10, Current: 10, Busiest: 300}}})
		return f
	}
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), file()); err != nil {
		t.Fatal(err)
	}
	text, err := Section(dir, record.Loads)
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"| 10,000 GETs of one cold key at once, 5 hosts | calls of the origin: sidecar, its origin | 1 | 1 | 1 | ≤ 1 | met |",
		"| 10,000 GETs of one cold key at once, 5 hosts | ms until all are answered: sidecar, its origin | 91 | 90 | 92 | – | – |",
		"calls of the origin: sidecar, LEASE and FILL by the apps | 2 | 1 | 3 | ≤ 1 | **missed by 1** |",
		"| sidecar, LEASE and FILL by the apps | 3 | 6 | 30,000 | 3 | BUSY |",
		"| ms until the sidecar answers | 9.1 | 9.1 | 9.1 | ≤ 10 | met |",
		"| GET hit, 16 × 64 | requests/s, namespace with an origin / without | 0.900 | 0.900 | 0.900 | ≥ 0.98 | **missed by 0.08** |",
		"| the origin is away for 60 s | reads without a value, meanwhile | 3 | 3 | 3 | ≤ 0 | **missed by 3** |",
		"busiest second once it is back, / rate | 2.00 | 2.00 | 2.00 | ≤ 1.1 | **missed by 0.9** |",
	)
	for _, c := range []struct {
		change func(rows []record.LoadsRow)
		want   string
	}{
		{func(rows []record.LoadsRow) { delete(rows[1].Crowds, record.Apps) }, "crowd 2 has no figures"},
		{func(rows []record.LoadsRow) { delete(rows[3].LeftMS, record.Groupcache) }, "hasty 1 has no figures"},
		{func(rows []record.LoadsRow) { delete(rows[4].Sides, record.Plain) }, "served 1 has no figures"},
		{func(rows []record.LoadsRow) { rows[5].Phases = nil }, "outage 1 has no figures"},
	} {
		f := file()
		c.change(f.Rows)
		if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
			t.Fatal(err)
		}
		if _, err := Section(dir, record.Loads); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got error %v, want one with %q", err, c.want)
		}
	}
}

// TestSizes makes figures from a model and checks that fit finds the model again.
func TestSizes(t *testing.T) {
	want := sizeModel{answer: 70, event: 17, poll: 100, quiet: [2]float64{5000, 2000}, busy: [2]float64{20_000, 9000}}
	f := record.File[record.SizesParameters, record.SizesRow]{Head: head(record.Sizes)}
	for _, nodes := range []int{3, 10, 50} {
		for _, rate := range []int{0, 10_000} {
			n := float64(nodes)
			r := record.SizesRow{Nodes: nodes, Rate: rate, Applied: float64(rate) * (n - 1) / n, Follows: want.follows(n, float64(rate)), Polls: 2 * (n - 1)}
			r.Followed, r.Polled, r.Gossip = want.answer*r.Follows+want.event*r.Applied, want.poll*r.Polls, want.gossip(n, float64(rate))
			f.Rows = append(f.Rows, r)
		}
	}
	got := fit(f.Rows)
	for _, c := range []struct{ got, want float64 }{{got.answer, want.answer}, {got.event, want.event}, {got.poll, want.poll}, {got.quiet[1], want.quiet[1]}, {got.busy[0], want.busy[0]}} {
		if math.Abs(c.got/c.want-1) > 1e-2 {
			t.Errorf("got %+v, want %+v", got, want)
		}
	}
	// Rare events are sent one by one; many events share an answer.
	if a := answers(10); math.Abs(a/10-1) > 0.05 {
		t.Errorf("10 events a second: got %.2f answers", a)
	}
	if a := answers(1e6); a > 1/(roundTrip+gatherFor)+1 {
		t.Errorf("a million events a second: got %.0f answers", a)
	}
	if a := answers(0); math.Abs(a-2) > 0.01 {
		t.Errorf("no events: got %.2f answers a second, want one each half", a)
	}
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	files := derive(t, dir)
	has(t, string(files[Page]), "The model has 70 bytes for asking a log and its answer, 17 for an event, 100 for a poll", "by 0 % at most", "| 3 | 10,000 |", "| 1000 |")
	if len(files[PlotsDir+"/sizes-bytes.svg"]) == 0 {
		t.Error("there is no plot")
	}
	f.Rows = f.Rows[:2]
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	if _, err := Section(dir, record.Sizes); err == nil || !strings.Contains(err.Error(), "the model needs two sizes") {
		t.Errorf("one size: got error %v", err)
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		t    *target
		v    float64
		want string
	}{
		{&target{"≥", 0.9}, 0.9, "met"}, {&target{"≥", 0.9}, 0.8996, "**missed by 0.0004**"},
		{&target{">", 1}, 1.001, "met"}, {&target{">", 1}, 1, "**missed by 0**"},
		{&target{"≤", 48}, 48, "met"}, {&target{"≤", 48}, 50.5, "**missed by 2.5**"},
		{&target{"<", 1}, 0.999, "met"}, {&target{"<", 1}, 1, "**missed by 0**"},
		{nil, 7, "–"},
	} {
		if got := c.t.verdict(c.v); got != c.want {
			t.Errorf("%v against %v: got %q, want %q", c.v, c.t, got, c.want)
		}
	}
	if got := (&target{"≥", -2.5}).String(); got != "≥ −2.5" {
		t.Errorf("got %q", got)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want spread
	}{
		{[]float64{3, 1, 2}, spread{2, 1, 3}},
		{[]float64{4, 1, 2, 3}, spread{2.5, 1, 4}},
		{[]float64{7}, spread{7, 7, 7}},
		{nil, spread{}},
	} {
		if got := spreadOf(c.in); got != c.want {
			t.Errorf("%v: got %v, want %v", c.in, got, c.want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "−1,000", -100: "−100"} {
		if got := thousands(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

// TestOverload checks the figures of the section on overload.
func TestOverload(t *testing.T) {
	phase := func(perSecond int64, p99 float64, busy int64) record.OverloadPhase {
		p := record.OverloadPhase{Rate: 3000, Seconds: 1, Due: 3000, Served: perSecond, Busy: busy}
		for _, q := range record.Percentiles {
			p.ServeUS, p.BusyUS, p.LagUS = append(p.ServeUS, p99*q/99), append(p.BusyUS, 60*q), append(p.LagUS, q)
		}
		return p
	}
	f := record.File[record.OverloadParameters, record.OverloadRow]{Head: head(record.Overload)}
	for round := range 3 {
		f.Rows = append(f.Rows, record.OverloadRow{Kind: record.Misses, Round: round + 1, Phases: map[string]record.OverloadPhase{
			record.Near: phase(1000, 20, 0), record.Calm: phase(800, 1000, 0), record.Over: phase(700+int64(100*round), 5000, 1500),
		}}, record.OverloadRow{Kind: record.Requests, Round: round + 1, Phases: map[string]record.OverloadPhase{
			record.Near: phase(1000, 20, 0), record.Calm: phase(800, 1000, 0), record.Over: phase(500, 7000, 0),
		}}, record.OverloadRow{Kind: record.Metrics, Round: round + 1, Depth: 64, Sides: map[string]record.Side{
			record.Scraped: side(96), record.HTTPOff: side(100),
		}})
	}
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	text, err := Section(dir, record.Overload)
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
		"| small requests at 3 × saturation | goodput / peak | 0.50 | 0.50 | 0.50 | ≥ 0.8 | **missed by 0.3** |",
		"| small requests at 3 × saturation | p99 of served / p99 at 0.8 × | 7.00 | 7.00 | 7.00 | ≤ 5 | **missed by 2** |",
		"| loads at 3 × saturation | goodput / peak | 0.80 | 0.70 | 0.90 | ≥ 0.8 | met |",
		"| loads at 3 × saturation | p99 until BUSY, ms | 5.9 | 5.9 | 5.9 | ≤ 5 | **missed by 0.94** |",
		"| GET hit, 16 × 64 | requests/s, metrics asked for each second / without HTTP | 0.960 | 0.960 | 0.960 | ≥ 0.97 | **missed by 0.01** |",
		"| loads | 3 × | 3000 | 800 | 2.53 | 5.00 | 50 | 5.94 | 0 | 0 | 0.10 |")
	if strings.Contains(text, "small requests at 3 × saturation | p99 until BUSY") {
		t.Error("a kind of which none is refused has a row for refusals")
	}
	delete(f.Rows[0].Phases, record.Calm)
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	if _, err := Section(dir, record.Overload); err == nil || !strings.Contains(err.Error(), "misses 1 has no figures") {
		t.Errorf("got error %v for a rate without figures", err)
	}
}
