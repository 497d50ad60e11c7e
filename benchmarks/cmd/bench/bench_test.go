package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/peers"
	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/report"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// bench runs the command and returns what it prints.
func bench(t *testing.T, args ...string) (out, log string, err error) {
	t.Helper()
	var o, l bytes.Buffer
	err = run(t.Context(), args, &o, &l)
	return o.String(), l.String(), err
}

// need skips a test if a program is not installed. In CI it fails the test instead.
func need(t *testing.T, programs ...string) {
	t.Helper()
	for _, p := range programs {
		if _, err := peers.Installed(p); err != nil {
			testenv.Needs(t, err.Error())
		}
	}
}

// shapes counts the loads of a file.
func shapes(f record.File) int {
	seen := map[string]bool{}
	for _, r := range f.Rows {
		seen[r.Shape] = true
	}
	return len(seen)
}

// TestEverythingOnce runs each single-host measurement at small scale with real servers,
// and writes the report.
func TestEverythingOnce(t *testing.T) {
	need(t, "redis-server", "memcached")
	dir := t.TempDir()
	for _, c := range []struct {
		args []string
		want []string // in the output
	}{
		{[]string{"socket", "-rounds", "1", "-turns", "2", "-sweep-turns", "2", "-turn", "25", "-warm-up", "5", "-entries", "2000", "-cycle", "4096"},
			[]string{"GET hit, 16 × 64", "SET, 1 × 1", "| GET hit, 16 × 1 | echo |"}},
		{[]string{"cost", "-rounds", "1", "-turns", "1", "-turn", "25", "-cycle", "4096", "-rate", "2000", "-steady", "50"},
			[]string{"GET, 16 × 1, beside processes that spin", "SET, 64 × 1, beside builds", "CPU, endpoint / bare",
				"GET, 32 connections, 2,000/s, beside builds"}},
		{[]string{"clients", "-rounds", "1", "-turns", "2", "-turn", "25", "-warm-up", "5", "-cold", "1000"},
			[]string{"GET hits, 1 goroutine", "shared memory, ns a hit", "first 1,000 GETs of a process", "redis, go-redis"}},
		{[]string{"memory", "-rounds", "1", "-entries", "20000"},
			[]string{"resident memory, sidecar / memcached", "| entry headers | 24.00 |", "| memcached | ", " | 20,000 | 0 |"}},
		{[]string{"gc", "-rounds", "1", "-entries", "5000", "-few", "1000", "-turns", "1", "-turn", "20", "-churn", "600", "-cycle", "4096"},
			[]string{"collector's share of CPU", "5,000 keys"}},
		{[]string{"idle", "-rounds", "1", "-conns", "50"},
			[]string{"50 idle connections", "a batch of 64 GETs"}},
	} {
		out, log, err := bench(t, append(c.args, "-dir", dir)...)
		if err != nil {
			t.Fatalf("%s: %v\n%s", c.args[0], err, log)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s prints no %q:\n%s", c.args[0], want, out)
			}
		}
	}
	if _, log, err := bench(t, "report", "-dir", dir); err != nil || !strings.Contains(log, "4 plots") {
		t.Errorf("report: got error %v, log %q", err, log)
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Socket)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go", record.Redis, record.Memcached} {
		if v := f.Versions[name]; v == "" || v[0] < '0' || v[0] > '9' {
			t.Errorf("got version %q of %s", v, name)
		}
	}
	if got, want := shapes(f), 8+6+7-2; got != want {
		t.Errorf("got %d shapes of load, want %d", got, want)
	}
}

// TestEndpointOnce measures the endpoint for memcached's protocol at small scale.
func TestEndpointOnce(t *testing.T) {
	need(t, "memcached")
	dir := t.TempDir()
	out, log, err := bench(t, "memcached", "-dir", dir, "-rounds", "1", "-turns", "2", "-turn", "25", "-warm-up", "5", "-entries", "2000", "-cycle", "4096")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| GET hit, 16 × 1 | endpoint, text / own protocol |",
		"| SET, 16 × 64 | endpoint, meta / better of memcached's text and meta |",
		"| GET hits, 64 keys a line, 16 × 1 | memcached, text |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("memcached prints no %q:\n%s", want, out)
		}
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Endpoint)
	if err != nil || shapes(f) != 5 {
		t.Fatalf("got %d loads, error %v, want 5", shapes(f), err)
	}
	if v := f.Versions[record.Memcached]; v == "" || v[0] < '0' || v[0] > '9' {
		t.Errorf("got version %q of memcached", v)
	}
}

// TestLanguagesOnce measures clients in other languages at small scale.
func TestLanguagesOnce(t *testing.T) {
	need(t, "redis-server", "memcached")
	dir := t.TempDir()
	out, log, err := bench(t, "languages", "-dir", dir, "-rounds", "1", "-turns", "1", "-turn", "5", "-warm-up", "1", "-tasks", "8", "-threads", "2")
	if errors.Is(err, peers.ErrNotInstalled) {
		testenv.Needs(t, err.Error())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| Python: GET, one at a time | time of a call, over the socket / pymemcache |",
		"| Python: GET, 8 in flight | calls/s, over the socket / redis-py, hiredis |",
		"| Python: hit in the process | sidecar, shared memory, µs |",
		"| Python: hit in the process, without the extension | sidecar, shared memory, µs |",
		"| Node: GET, 8 in flight | calls/s, over the socket / ioredis, auto-pipelining |",
		"| Node: hit in the process | sidecar, near cache |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("languages prints no %q:\n%s", want, out)
		}
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Languages)
	if err != nil || shapes(f) != 6+4 {
		t.Fatalf("got %d cases, error %v, want 10", shapes(f), err)
	}
	for _, name := range []string{"python", "redis-py", "hiredis", "pymemcache", "node", "node-redis", "ioredis"} {
		if v := f.Versions[name]; v == "" || v[0] < '0' || v[0] > '9' {
			t.Errorf("got version %q of %s", v, name)
		}
	}
}

// TestChangesOnce measures a feed of changes at small scale, with a real PostgreSQL.
func TestChangesOnce(t *testing.T) {
	dir := t.TempDir()
	out, log, err := bench(t, "changes", "-dir", dir, "-rounds", "1", "-hosts", "2", "-commits", "5", "-rows", "500", "-seconds", "1")
	if errors.Is(err, peers.ErrNotInstalled) {
		testenv.Needs(t, err.Error())
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| a COMMIT, 2 hosts | ms until no host has the old value, p99 |", "| 500 rows in the log | rows/s, feed / bare reader |",
		"| pgbench -N | transactions/s, with a feed / without |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("changes prints no %q:\n%s", want, out)
		}
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Changes)
	if rate := f.Rows.Of("500 rows in the log", record.Feed, "rows/s"); err != nil || len(rate) != 1 || rate[0] <= 0 {
		t.Errorf("%+v, %v", f.Rows, err)
	}
	for _, side := range []string{record.NoStream, record.BareReader, record.Feed} {
		if n := len(f.Rows.Of("pgbench -N", side, "transactions/s")); n != 1 {
			t.Errorf("got %d rounds of pgbench with %s, want one", n, side)
		}
	}
	if v := f.Versions["postgresql"]; v == "" || v[0] < '0' || v[0] > '9' {
		t.Errorf("got version %q of PostgreSQL", v)
	}
}

// TestOverloadOnce measures overload at small scale.
func TestOverloadOnce(t *testing.T) {
	dir := t.TempDir()
	out, log, err := bench(t, "overload", "-dir", dir, "-rounds", "1", "-phase", "50", "-warm-up", "20", "-step", "50", "-conns", "4",
		"-entries", "1000", "-large", "65536", "-scrape-rounds", "1", "-turns", "1", "-turn", "150", "-cycle", "4096")
	if err != nil && strings.Contains(err.Error(), "want 2: one for the sidecar") {
		t.Skip(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{"small requests at 3 ×", "connections at 3 ×", "large values at 3 ×", "loads at 3 ×", "GET hit, 16 × 64"} {
		if !strings.Contains(out, want) {
			t.Errorf("it prints no %q:\n%s", want, out)
		}
	}
}

// TestSeveralHostsOnce measures several hosts at small scale.
func TestSeveralHostsOnce(t *testing.T) {
	dir := t.TempDir()
	out, log, err := bench(t, "cluster", "-dir", dir, "-rounds", "1", "-turns", "1", "-turn", "100", "-entries", "2000", "-cycle", "4096",
		"-hot", "200", "-max-staleness", "3000", "-kills", "1", "-probe", "20", "-hosts", "2", "-fixed", "1000", "-reads", "500")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| GET of another host's key, copy here, 16 × 64 | requests/s, copies / own keys |",
		"| GET of another host's key, its owner answers, 16 × 1 | requests/s, sidecar embedded / olric |",
		"| a host of three is killed | errors of reads of its keys, through the others |",
		"| 2 hosts restart, one after the other | hits in the lowest second, % |",
		"| a host joins 2 others | host-3 | – | – |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("cluster prints no %q:\n%s", want, out)
		}
	}
	if _, log, err := bench(t, "report", "-dir", dir); err != nil || !strings.Contains(log, "1 plots") {
		t.Errorf("report: got error %v, log %q", err, log)
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Cluster)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{record.Groupcache, record.Olric} {
		if v := f.Versions[name]; !strings.HasPrefix(v, "v") {
			t.Errorf("got version %q of %s", v, name)
		}
	}
	if got, want := shapes(f), 2+1+1+1+1+1; got != want {
		t.Errorf("got %d loads, want %d", got, want)
	}
}

// TestPropagationOnce measures invalidations at small scale, in two runs.
func TestPropagationOnce(t *testing.T) {
	need(t, "redis-server")
	dir := t.TempDir()
	args := []string{"propagation", "-dir", dir, "-hosts", "3", "-entries", "1000", "-rate", "100", "-seconds", "1", "-short-seconds", "1", "-max-staleness", "3000"}
	if _, log, err := bench(t, append(args, "-rounds", "1", "-hangs", "0")...); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	out, log, err := bench(t, append(args, "-rounds", "0", "-hangs", "1", "-hang-seconds", "6", "-more")...)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| 100 invalidations/s, 3 hosts | ms until all have it, p50 |",
		"| 1,000 invalidations/s, 3 hosts | ms until all have it, longest |",
		"sidecar, of a host whose links hang |",
		"| 10 invalidations/s, 3 hosts | redis, client tracking |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("propagation prints no %q:\n%s", want, out)
		}
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Propagation)
	if err != nil || shapes(f) != 3+1 {
		t.Fatalf("got %d loads, error %v, want 4", shapes(f), err)
	}
	// Both links hung for longer than the bound. A client without pings serves the old
	// value all the time.
	hung := func(side, figure string) float64 {
		v := f.Rows.Of("a link hangs for 6 s", side, figure)
		if len(v) != 1 {
			t.Fatalf("got %d hangs of %s, want one", len(v), side)
		}
		return v[0]
	}
	if old := hung(record.HangingHost, "old value served for, s"); hung(record.HangingHost, "old") == 0 || old > 3.1 {
		t.Errorf("the sidecar served what was overwritten for %.2f s, want 3 at most, and some of them", old)
	}
	// A slow machine may begin its last read late.
	if old := hung(record.NoPings, "old value served for, s"); old < 3.5 {
		t.Errorf("a client of redis that is told nothing served what was overwritten for %.2f s, want 6, and more than the bound at least", old)
	}
	if !strings.HasSuffix(f.Command, " -more -rate 100 -rounds 0 -seconds 1 -short-seconds 1") {
		t.Errorf("got command %q, want one that can be typed again", f.Command)
	}
	if v := f.Versions["rueidis"]; !strings.HasPrefix(v, "v") {
		t.Errorf("got version %q of rueidis", v)
	}
}

// TestSizesOnce counts the traffic of a few sidecars.
func TestSizesOnce(t *testing.T) {
	dir := t.TempDir()
	out, log, err := bench(t, "sizes", "-dir", dir, "-nodes", "2,3", "-rates", "0,500", "-window", "500")
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{"| 3 nodes, 500 writes/s |", "| 1000 |", "![What a node sends, by the number of nodes](plots/sizes-bytes.svg)"} {
		if !strings.Contains(out, want) {
			t.Errorf("sizes prints no %q:\n%s", want, out)
		}
	}
}

// TestLoadsOnce measures loads at small scale, in two runs.
func TestLoadsOnce(t *testing.T) {
	dir := t.TempDir()
	args := []string{"loads", "-dir", dir, "-rounds", "1", "-turns", "1", "-turn", "50", "-entries", "2000", "-cycle", "4096", "-hosts", "2", "-conns", "2", "-depth", "20",
		"-cold", "2", "-hastes", "1", "-outage-hosts", "2", "-outage-keys", "40", "-outage-ttl", "500", "-reads", "200", "-up", "1", "-down", "2", "-back", "7"}
	if _, log, err := bench(t, append(args, "-parts", "crowd,served")...); err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	out, log, err := bench(t, append(args, "-parts", "outage")...)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	for _, want := range []string{
		"| 80 GETs of one cold key at once, 2 hosts | calls of the origin: sidecar, its origin | 1 | 1 | 1 | ≤ 1 | met |",
		"| 80 GETs of one cold key at once, 2 hosts | calls of the origin: sidecar, LEASE and FILL by the apps | 1 | 1 | 1 | ≤ 1 | met |",
		"| groupcache, its loader | 2 | 2 | 160 | 0 | – |",
		"| a caller with 10 ms waits for a load of 50 ms | ms until groupcache returns |",
		"| GET hit, 16 × 64 | requests/s, namespace with an origin / without |",
		"| the origin is away for 2 s | reads without a value, meanwhile | 0 | 0 | 0 | ≤ 0 | met |",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("loads prints no %q:\n%s", want, out)
		}
	}
	f, err := record.Read(filepath.Join(dir, report.RoundsDir), record.Loads)
	if err != nil || shapes(f) != 1+1+3+1 {
		t.Fatalf("got %d loads, error %v, want 6", shapes(f), err)
	}
	if keys := f.Rows.Of("80 GETs of one cold key at once, 2 hosts", record.OriginLoads, "requests"); len(keys) != 2 {
		t.Errorf("a crowd has asked for %d keys, want 2", len(keys))
	}
	phase := func(name, figure string) float64 { return f.Rows.Of("the origin is away for 2 s", name, figure)[0] }
	if phase(record.OriginDown, "stale") == 0 || phase(record.OriginDown, "calls of the origin") != 0 {
		t.Errorf("while the origin was away: %+v, want stale values, and no calls that it took", f.Rows)
	}
	if phase(record.OriginBack, "current") == 0 || phase(record.OriginBack, "calls of the origin") == 0 {
		t.Errorf("once it is back: %+v, want values that were loaded", f.Rows)
	}
}

func TestHitsAndReport(t *testing.T) {
	traces, dir := t.TempDir(), t.TempDir()
	var keys []byte
	for i := range 40_000 {
		key := i % 3000
		if i%2 == 0 { // half of the requests go to a few keys
			key = i % 600
		}
		keys = binary.BigEndian.AppendUint32(keys, uint32(key))
	}
	for name, content := range map[string][]byte{
		"loop.trace":  keys,
		"small.txt":   []byte("x\ny\n"),
		"LICENSE.txt": []byte("not a trace\n"),
	} {
		if err := os.WriteFile(filepath.Join(traces, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plots := filepath.Join(dir, report.PlotsDir)
	if err := os.MkdirAll(plots, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(plots, "old.svg"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	out, log, err := bench(t, "hits", "-traces", traces, "-dir", dir, "-rounds", "2", "-points", "3")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log, "small: 2 requests for 2 keys: too few to cache, left out") || !strings.Contains(out, "| loop | 40,000 | 1,800 |") {
		t.Errorf("got\n%s\n%s", out, log)
	}
	if _, _, err := bench(t, "report", "-dir", dir); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(dir, report.Page))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(page), "`go run ./cmd/bench hits -points 3 -rounds 2 -traces DIR`") {
		t.Errorf("the page does not name the command:\n%s", page)
	}
	for name, there := range map[string]bool{"hits-loop.svg": true, "old.svg": false} {
		if _, err := os.Stat(filepath.Join(plots, name)); (err == nil) != there {
			t.Errorf("%s: got error %v, want it there: %v", name, err, there)
		}
	}
	// No file that is kept names a folder of this machine.
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(traces)) || bytes.Contains(b, []byte(dir)) {
			t.Errorf("%s names a folder of this machine", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	empty := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
		want string // of the error, or of the log if help is requested
		help bool
	}{
		{"nothing", nil, "socket", true},
		{"-h", []string{"-h"}, "all of these in turn", true},
		{"-h of a word", []string{"gc", "-h"}, "-entries", true},
		{"unknown word", []string{"speed"}, `"speed" is not measured`, false},
		{"unknown flag", []string{"gc", "-x"}, "flag provided but not defined: -x", true},
		{"an argument", []string{"gc", "5000"}, `gc: "5000" is no flag`, false},
		{"below the least", []string{"memory", "-rounds", "0"}, "memory -rounds 0: give at least 1", false},
		{"more few than many", []string{"gc", "-entries", "1000", "-few", "2000"}, "gc -few 2000: give at most the 1000", false},
		{"hotter than there are keys", []string{"cluster", "-entries", "1000", "-hot", "501"}, "cluster -hot 501: give at most half of the 1000", false},
		{"no such load", []string{"overload", "-kinds", "rain"}, "there is no kind \"rain\": give some of requests", false},
		{"one host restarts", []string{"cluster", "-hosts", "1"}, "cluster -hosts 1: give at least 2", false},
		{"nothing of invalidations", []string{"propagation", "-rounds", "0", "-hangs", "0"}, "give at least one of either", false},
		{"an interpreter that is not there", []string{"languages", "-python", filepath.Join(empty, "python3")}, "not installed", false},
		{"more keys than are hot", []string{"languages", "-entries", "65537"}, "languages -entries 65537: give at most 65536", false},
		{"more of nothing", []string{"propagation", "-dir", empty, "-more"}, "no rounds of propagation", false},
		{"an unknown part of loads", []string{"loads", "-parts", "crowd,all"}, `loads -parts: there is no part "all": give some of crowd, served, outage`, false},
		{"more loads than may wait", []string{"loads", "-depth", "501"}, "give a depth of at most 500", false},
		{"no haste", []string{"loads", "-haste", "50"}, "less haste than the origin takes", false},
		{"no folder of traces", []string{"hits"}, "give -traces DIR", false},
		{"a folder that is not there", []string{"hits", "-traces", filepath.Join(empty, "none")}, "no such file", false},
		{"a folder without traces", []string{"hits", "-traces", empty}, "no traces in", false},
		{"a report of nothing", []string{"report", "-dir", empty}, "there are no rounds", false},
		{"all, an argument", []string{"all", "socket"}, `"socket" is no flag`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, log, err := bench(t, c.args...)
			if c.help {
				if !errors.Is(err, flag.ErrHelp) || !strings.Contains(log, c.want) {
					t.Errorf("got error %v and\n%s\nwant help with %q", err, log, c.want)
				}
			} else if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got error %v, want one with %q", err, c.want)
			}
		})
	}
}
