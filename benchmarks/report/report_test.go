package report

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
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
		if _, err := record.Read(filepath.Join(dir, RoundsDir), s.what); err != nil {
			t.Error(err)
		}
	}
	for what := range goalsOf {
		if !slices.ContainsFunc(sections, func(s struct{ what, title string }) bool { return s.what == what }) && what != record.TLS {
			t.Errorf("%s has goals, and no section", what)
		}
	}
}

// file returns a file without rows.
func file(what string) record.File {
	return record.File{Head: record.Head{
		What: what, Command: "go run ./cmd/bench " + what, Commit: "abc", Date: time.Unix(0, 0), Versions: map[string]string{"go": "1.26"},
	}}
}

// addSide adds a round of a side with the given thousands of requests a second.
func addSide(f *record.File, shape, side string, thousands float64) {
	f.Rows.Add(shape, side, "requests/s", 1000*thousands)
	addDelays(f, shape, side, "", "µs", 10)
}

// addDelays adds a round of percentiles, each more than the one before by the same.
func addDelays(f *record.File, shape, side, prefix, unit string, each float64) {
	for i, p := range record.Percentiles {
		f.Rows.Add(shape, side, prefix+p.Name+" "+unit, each*float64(i+1))
	}
}

// text returns a file's section.
func text(t *testing.T, f record.File) string {
	t.Helper()
	text, err := Text(f)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// page returns the page and the plots of one file.
func page(t *testing.T, f record.File) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	files, err := Derive(dir)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Derive(dir); err != nil || !maps.EqualFunc(again, files, bytes.Equal) {
		t.Errorf("the second page differs, error %v", err)
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

// fails checks the error if the rows that drop chooses are not there, or lack their last round.
func fails(t *testing.T, f record.File, want string, drop func(r *record.Row) bool) {
	t.Helper()
	var rows record.Rows
	for _, r := range f.Rows {
		if drop(&r) {
			r.Values = r.Values[:len(r.Values)-1]
		}
		if len(r.Values) > 0 {
			rows = append(rows, r)
		}
	}
	f.Rows = rows
	if _, err := Text(f); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want one with %q", err, want)
	}
}

func socketFile() record.File {
	f := file(record.Socket)
	for round := range 3 {
		for _, op := range []string{"GET hit", "SET"} {
			for _, shape := range []string{"1 × 1", "16 × 1", "1 × 64", "16 × 64"} {
				for side, thousands := range map[string]float64{record.Sidecar: float64(100 + 10*round), record.Redis: 100, record.Memcached: 50, record.Echo: 200} {
					addSide(&f, op+", "+shape, side, thousands)
				}
			}
		}
	}
	return f
}

func TestWinsAndLossesStandInTheSameTable(t *testing.T) {
	f := socketFile()
	files := page(t, f)
	has(t, string(files[Page]),
		"| GET hit, 1 × 1 | sidecar / echo | 0.55 | 0.50 | 0.60 | ≥ 0.9 | **missed by 0.35** |",
		"| GET hit, 1 × 1 | sidecar / redis | 1.10 | 1.00 | 1.20 | > 1 | met |",
		"| GET hit, 16 × 64 | sidecar / better of redis and memcached | 1.10 | 1.00 | 1.20 | ≥ 2 | **missed by 0.9** |",
		"| SET, 16 × 64 | sidecar / memcached | 2.20 | 2.00 | 2.40 | > 1 | met |",
		"16 of 19 targets are met; missed are:",
		"| GET hit, 1 × 1 | sidecar | 110,000 | 100,000 | 120,000 | 10 | 50 | 70 |",
		"![Throughput against connections](plots/throughput-connections.svg)",
		"Versions: go 1.26.",
	)
	if !strings.Contains(string(files[Page]), strings.TrimSpace(text(t, f))) {
		t.Error("the section is not what the page has of it")
	}
	fails(t, f, `SET, 1 × 1: there are 2 rounds of requests/s of "redis", want 3: measure it again with "go run ./cmd/bench socket"`,
		func(r *record.Row) bool { return r.Shape == "SET, 1 × 1" && r.Side == record.Redis })
}

func TestDeriveErrors(t *testing.T) {
	if _, err := Derive(t.TempDir()); err == nil || !strings.Contains(err.Error(), "go run ./cmd/bench all") {
		t.Errorf("no rounds: got error %v", err)
	}
	if _, err := Text(file("speed")); err == nil {
		t.Error("something that is not measured has a section")
	}
}

func TestEndpoint(t *testing.T) {
	f := file(record.Endpoint)
	for round := range 3 {
		for _, shape := range []string{"GET hit, 16 × 1", "GET hit, 16 × 64", "SET, 16 × 64"} {
			for side, thousands := range map[string]float64{
				record.OwnProtocol: 100, record.EndpointText: float64(80 + 10*round), record.EndpointMeta: 95, record.MemcachedText: 60, record.MemcachedMeta: 100,
			} {
				addSide(&f, shape, side, thousands)
			}
		}
		addSide(&f, "GET hits, 64 keys a line, 16 × 1", record.EndpointText, 90)
		addSide(&f, "GET hits, 64 keys a line, 16 × 1", record.MemcachedText, 60)
	}
	all := string(page(t, f)[Page])
	has(t, all,
		"| GET hit, 16 × 1 | endpoint, text / own protocol | 0.90 | 0.80 | 1.00 | ≥ 0.95 | **missed by 0.05** |",
		"| GET hit, 16 × 1 | endpoint, text / better of memcached's text and meta | 0.90 | 0.80 | 1.00 | – | – |",
		"| GET hit, 16 × 64 | endpoint, meta / own protocol | 0.95 | 0.95 | 0.95 | ≥ 0.95 | met |",
		"| SET, 16 × 64 | endpoint, meta / better of memcached's text and meta | 0.95 | 0.95 | 0.95 | ≥ 1 | **missed by 0.05** |",
		"| GET hits, 64 keys a line, 16 × 1 | endpoint, text / memcached, text | 1.50 | 1.50 | 1.50 | – | – |",
		"| GET hit, 16 × 64 | memcached, meta | 100,000 | 100,000 | 100,000 | 10 | 50 | 70 |",
		"3 of 10 targets are met; missed are:",
	)
	if strings.Contains(all, "64 keys a line, 16 × 1 | own protocol") {
		t.Error("a side without a command for many keys has figures of one")
	}
	fails(t, f, `GET hits, 64 keys a line, 16 × 1: there are 2 rounds of requests/s of "memcached, text", want 3: measure it again with "go run ./cmd/bench memcached"`,
		func(r *record.Row) bool {
			return strings.HasPrefix(r.Shape, "GET hits") && r.Side == record.MemcachedText
		})
}

func TestCost(t *testing.T) {
	f := file(record.Cost)
	for round := range 3 {
		for _, beside := range []string{"", ", beside processes that spin"} {
			for _, conns := range []int{1, 16, 64} {
				for side, v := range map[string][2]float64{
					record.OwnProtocol: {9, 120}, record.EndpointText: {float64(10 + round), 90}, record.Memcached: {10, 100}, record.MemcachedTuned: {7, 100}, record.Bare: {8, 110},
				} {
					f.Rows.Add(fmt.Sprintf("GET, %d × 1%s", conns, beside), side, "CPU µs", v[0])
					f.Rows.Add(fmt.Sprintf("GET, %d × 1%s", conns, beside), side, "requests/s", 1000*v[1])
				}
			}
		}
	}
	has(t, text(t, f),
		"| GET, 1 × 1 | CPU, endpoint / bare | 1.38 | 1.25 | 1.50 | ≤ 1.15 | **missed by 0.23** |",
		"| GET, 1 × 1 | requests/s, endpoint / memcached | 0.90 | 0.90 | 0.90 | ≥ 0.9 | met |",
		"| GET, 16 × 1 | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1 | **missed by 0.1** |",
		"| GET, 16 × 1, beside processes that spin | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1 | **missed by 0.1** |",
		"| GET, 64 × 1 | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1.1 | met |",
		"| GET, 16 × 1 | 0.90, 1.20 | 1.10, 0.90 | 0.70, 1.00 | 0.80, 1.10 |",
		"| GET, 16 × 1 | 9.0 µs, 120,000/s | 11.0 µs, 90,000/s | 10.0 µs, 100,000/s | 7.0 µs, 100,000/s | 8.0 µs, 110,000/s |",
	)
	fails(t, f, `GET, 16 × 1: there are 2 rounds of CPU µs of "bare", want 3: measure it again with "go run ./cmd/bench cost"`,
		func(r *record.Row) bool { return r.Shape == "GET, 16 × 1" && r.Side == record.Bare })
}

// TestLanguages checks the figures of the section on clients in other languages.
func TestLanguages(t *testing.T) {
	f := file(record.Languages)
	f.Parameters = record.Parameters{Tasks: 64, Threads: 4}
	redis := []string{record.OursSocket, record.RedisPy, record.RedisPyParser, record.RedisPyOne}
	inNode := []string{record.OursSocket, record.NodeRedis, record.Ioredis}
	for round := range 3 {
		for _, c := range []struct {
			shape string
			sides []string
		}{
			{"Python: GET, one at a time", append(redis, record.Pymemcache)}, {"Python: SET, one at a time", append(redis, record.Pymemcache)},
			{"Python: GET, 4 threads", []string{record.OursSocket, record.RedisPy, record.Pymemcache}}, {"Python: GET, 64 in flight", redis},
			{"Python: hit in the process", []string{record.OursNear, record.OursShared, record.LRUCache, record.RedisPy}},
			{"Python: hit in the process, without the extension", []string{record.OursShared, record.LRUCache, record.RedisPy}},
			{"Node: GET, one at a time", inNode}, {"Node: SET, one at a time", inNode}, {"Node: GET, 64 in flight", append(inNode, record.IoredisAuto)},
			{"Node: hit in the process", []string{record.OursNear, record.MapInNode, record.NodeRedis}},
		} {
			for i, side := range c.sides { // each takes 1 µs more than the one before
				f.Rows.Add(c.shape, side, "µs a call", float64(1+i+round))
				f.Rows.Add(c.shape, side, "calls/s", 1e6/float64(1+i+round))
			}
		}
		f.Rows.Add("Python: hit in the process", record.OursNear, "asked the sidecar, %", []float64{1.23, 0, 0}[round])
	}
	has(t, text(t, f),
		"| Python: GET, one at a time | time of a call, over the socket / pymemcache | 0.33 | 0.20 | 0.43 | ≤ 1 | met |",
		"| Python: SET, one at a time | time of a call, over the socket / redis-py, hiredis | 0.67 | 0.50 | 0.75 | – | – |",
		"| Python: GET, 4 threads | calls/s, over the socket / pymemcache | 2.00 | 1.67 | 3.00 | – | – |",
		"| Python: GET, 64 in flight | calls/s, over the socket / redis-py, hiredis | 1.50 | 1.33 | 2.00 | ≥ 2 | **missed by 0.5** |",
		"| Python: hit in the process | sidecar, near cache, µs | 2.00 | 1.00 | 3.00 | ≤ 2 | met |",
		"| Python: hit in the process | sidecar, shared memory, µs | 3.00 | 2.00 | 4.00 | ≤ 2 | **missed by 1** |",
		"| Python: hit in the process, without the extension | sidecar, shared memory, µs | 2.00 | 1.00 | 3.00 | ≤ 10 | met |",
		"| Node: GET, one at a time | calls/s, over the socket / node-redis | 1.50 | 1.33 | 2.00 | ≥ 1 | met |",
		"| Node: GET, 64 in flight | calls/s, over the socket / ioredis, auto-pipelining | 2.50 | 2.00 | 4.00 | > 1 | met |",
		"| Node: hit in the process | time of a call, node-redis / sidecar, near cache | 2 | 2 | 3 | – | – |",
		"at most 1.23 % of a round's asked the sidecar",
		"| Node: GET, 64 in flight | ioredis, auto-pipelining | 5.00 | 4.00 | 6.00 | 200,000 |")
	fails(t, f, `Python: GET, one at a time: there are 2 rounds of µs a call of "pymemcache"`,
		func(r *record.Row) bool {
			return r.Shape == "Python: GET, one at a time" && r.Side == record.Pymemcache
		})
}

func TestHitsAreHeldAgainstLRU(t *testing.T) {
	f := file(record.Hits)
	add := func(shape string, segment, lru float64) {
		for _, p := range hits.Policies {
			n := lru
			if p.Name == hits.Segment {
				n = segment
			}
			f.Rows.Add(shape, p.Name, hitsPercent, n)
		}
	}
	f.Rows.Add("a", "", "requests", 1000)
	f.Rows.Add("a", "", "keys", 100)
	add("cache2k-orm-busy, 760 entries", 48, 50)
	add("a, 2,000 entries", 48.5, 50)
	add("a, 9,000 entries", 60, 50)
	add("a, 1,073,741,824 bytes", 10, 50)
	has(t, text(t, f),
		"| cache2k-orm-busy, 760 entries | l2/segment less LRU, points | −2.00 | −2.00 | −2.00 | ≥ −0.5 | **missed by 1.5** |",
		"| a, 2,000 entries | l2/segment less LRU, points | −1.50 | −1.50 | −1.50 | ≥ −0.5 | **missed by 1** |",
		"| a, 1,073,741,824 bytes | l2/segment less LRU, points | −40.00 | −40.00 | −40.00 | – | – |",
		"| mean of all at equal entries | l2/segment less LRU, points | +2.17 | +2.17 | +2.17 | ≥ 4.55 | **missed by 2.4** |",
		"| a, 9,000 entries | 50.00 | 50.00 | 50.00 | 60.00 |",
		"At equal bytes",
	)
}

// TestSizes makes figures from a model and checks that fit finds the model again.
func TestSizes(t *testing.T) {
	want := sizeModel{answer: 70, event: 17, poll: 100, quiet: [2]float64{5000, 2000}, busy: [2]float64{20_000, 9000}}
	f := file(record.Sizes)
	for _, n := range []float64{3, 10, 50} {
		for _, rate := range []float64{0, 10_000} {
			applied, follows, polls := rate*(n-1)/n, want.follows(n, rate), 2*(n-1)
			for name, v := range map[string]float64{
				"nodes": n, "rate": rate, "applied": applied, "follows": follows, "polls": polls, "followed_bytes": want.answer*follows + want.event*applied,
				"polled_bytes": want.poll * polls, "gossip_bytes": want.gossip(n, rate),
			} {
				f.Rows.Add(fmt.Sprintf("%.0f nodes, %s writes/s", n, record.Commas(rate)), "", name, v)
			}
		}
	}
	_, list := countsOf(&f)
	got := fit(list)
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
	files := page(t, f)
	has(t, string(files[Page]), "The model has 70 bytes for asking a log and its answer, 17 for an event, 100 for a poll", "by 0 % at most", "| 3 nodes, 10,000 writes/s |", "| 1000 |")
	if len(files[PlotsDir+"/sizes-bytes.svg"]) == 0 {
		t.Error("there is no plot")
	}
	f.Rows = slices.DeleteFunc(f.Rows, func(r record.Row) bool { return !strings.HasPrefix(r.Shape, "3 nodes") })
	if _, err := Text(f); err == nil || !strings.Contains(err.Error(), "the model needs two sizes") {
		t.Errorf("one size: got error %v", err)
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		target string
		v      float64
		want   string
	}{
		{"≥ 0.9", 0.9, "met"}, {"≥ 0.9", 0.8996, "**missed by 0.0004**"},
		{"> 1", 1.001, "met"}, {"> 1", 1, "**missed by 0**"},
		{"≤ 48", 48, "met"}, {"≤ 48", 50.5, "**missed by 2.5**"},
		{"< 1", 0.999, "met"}, {"< 1", 1, "**missed by 0**"},
		{"≥ −2.5", -2.5, "met"}, {"≥ −2.5", -2.75, "**missed by 0.25**"},
		{"", 7, "–"},
	} {
		if got := verdict(c.target, c.v); got != c.want {
			t.Errorf("%v against %q: got %q, want %q", c.v, c.target, got, c.want)
		}
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

func TestNumbers(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "−1,000", -100: "−100"} {
		if got := print("n", v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}
