package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var update = flag.Bool("update", false, "write the golden files anew")

// These parts of the output differ from run to run.
var (
	anyNumber = regexp.MustCompile(`": -?[0-9][0-9.e+-]*`)
	version64 = regexp.MustCompile(`"version": ?"[1-9][0-9]*"`)
	goVersion = regexp.MustCompile(`"go": "go[^"]+"`)
	epoch     = regexp.MustCompile(`"epoch": "[0-9a-f]+"`)
	ttl       = regexp.MustCompile(`"ttl_ms": ?[1-9][0-9]*`)
)

// TestGoldenJSON checks the documents that --json prints, with the names and the order of
// their fields.
func TestGoldenJSON(t *testing.T) {
	testenv.Takes(t, 2*time.Second)
	socket := serveHere(t)
	version = "test" // usually set by the linker
	defer func() { version = "" }()
	mustRun(t, "set", "text", "<a> & ü\n", "--flags", "7")
	mustRun(t, "set", "eternal", "1", "--ttl", "0")
	if o := command(t, "\xff\x00", "set", "binary", "-"); o.status != exitDone {
		t.Fatal(o)
	}
	c, err := client.Dial(t.Context(), client.Config{Socket: socket, NoSharedMemory: true})
	testenv.Must(t, err)
	defer c.Close()
	for range 10_000 { // of which one in 256 is noted
		testenv.Must(t, testenv.ErrorOf(c.Get(t.Context(), "text", cachesidecar.GetOptions{})))
	}
	for _, tc := range []struct {
		file, line string
		status     int
		numbers    bool // all numbers vary
	}{
		{"get", "get text --json", 0, false},
		{"get_eternal", "get eternal --json", 0, false},
		{"get_binary", "get binary --json", 0, false},
		{"get_missing", "get none --json", 1, false},
		{"get_many", "get text none --json", 1, false},
		{"set", "set k v --json", 0, false},
		{"ttl", "ttl text --json", 0, false},
		{"ttl_many", "ttl eternal none --json", 1, false},
		{"ping", "ping --count 3 --json", 0, true},
		{"hot", "hot --n 1 --json", 0, true},
		{"slow", "slow --json", 0, true},
		{"keys", "keys text --json", 0, false},
		{"keys_count", "keys text --count --json", 0, false},
		{"incr", "incr n --initial -3 --json", 0, false},
		{"del", "del k none --json", 0, false},
		{"del_missing", "del none --json", 1, false},
		{"members", "members --json", 0, false},
		{"ring", "ring k --json", 0, false},
		{"version", "version --json", 0, false},
		{"bench", "bench --duration 1ms --keys 10 --conns 1 --json", 0, true},
		{"verify", "verify --duration 500ms --json", 0, true},
		{"stats", "stats --json", 0, true},
		{"stats_cluster", "stats --cluster --json", 0, true},
	} {
		t.Run(tc.file, func(t *testing.T) {
			o := command(t, "", strings.Fields(tc.line)...)
			if o.status != tc.status || o.err != "" {
				t.Fatalf("%v\nwant status %d and nothing on stderr", o, tc.status)
			}
			got := []byte(o.out)
			got = version64.ReplaceAll(got, []byte(`"version": "1"`))
			got = ttl.ReplaceAll(got, []byte(`"ttl_ms": 1`))
			got = epoch.ReplaceAll(got, []byte(`"epoch": "1"`))
			got = goVersion.ReplaceAll(got, []byte(`"go": "go1"`))
			if tc.numbers {
				got = anyNumber.ReplaceAll(got, []byte(`": 0`))
			}
			goldenText(t, tc.file+".json", string(got))
		})
	}
}

// goldenText compares a text with a file in testdata, or writes it.
func goldenText(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		testenv.Must(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	testenv.Must(t, err)
	if got != string(want) {
		t.Errorf("got:\n%s\nwant, as in %s (-update writes it anew):\n%s", got, name, want)
	}
}

// jsonFields returns the field names of all golden documents.
func jsonFields(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	var names []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		testenv.Must(t, err)
		for _, m := range regexp.MustCompile(`"([a-z0-9_]+)": ?`).FindAllSubmatch(b, -1) {
			names = append(names, string(m[1]))
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// TestStatsPage checks that the readable page has its parts and no colour.
func TestStatsPage(t *testing.T) {
	serveHere(t)
	t.Setenv("NO_COLOR", "1")
	mustRun(t, "set", "a", "1")
	mustRun(t, "get", "a")
	_ = command(t, "", "get", "none")
	page := mustRun(t, "stats")
	for _, want := range []string{
		"host1", "cachesidecar test, up ", "reads    2: 50.0 % hits, 0 loaded, 1 missing, 0 stale, 0 errors", "writes   1, deletes 0, errors 0", "of 16,384 connections",
		"1 entries, ", "NAMESPACE", "default", "process", "garbage collection",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q:\n%s", want, page)
		}
	}
	if !regexp.MustCompile(`up \d+s\n`).MatchString(page) {
		t.Errorf("the page does not say for how many seconds:\n%s", page)
	}
	if strings.Contains(page, "\x1b") {
		t.Errorf("the page has escape sequences:\n%q", page)
	}
	if strings.Contains(page, "rates") {
		t.Errorf("rates without an earlier reading:\n%s", page)
	}
}
