package report

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// TestLanguages checks the figures of the section on clients in other languages.
func TestLanguages(t *testing.T) {
	f := record.File[record.LanguagesParameters, record.LanguagesRow]{Head: head(record.Languages)}
	f.Parameters = record.LanguagesParameters{Tasks: 64, Threads: 4}
	for round := range 3 {
		for _, c := range comparisons(f.Parameters) {
			r := record.LanguagesRow{Round: round + 1, Language: c.language, Case: c.name, Sides: map[string]record.Calls{}}
			for i, side := range c.sides { // each takes 1 µs more than the one before
				r.Sides[side] = record.Calls{Calls: 1_000_000, Seconds: float64(1 + i + round)}
			}
			f.Rows = append(f.Rows, r)
		}
	}
	f.Rows[4].Sides[record.OursNear] = record.Calls{Calls: 1_000_000, Seconds: 1, Asked: 12_300}
	dir := t.TempDir()
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	text, err := Section(dir, record.Languages)
	if err != nil {
		t.Fatal(err)
	}
	has(t, text,
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
		"| Node, GET, 64 in flight | ioredis, auto-pipelining | 5.00 | 4.00 | 6.00 | 200,000 |")
	delete(f.Rows[0].Sides, record.Pymemcache)
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
	if _, err := Section(dir, record.Languages); err == nil || !strings.Contains(err.Error(), "round 1 of Python, GET, one at a time has no figures of pymemcache") {
		t.Errorf("got error %v for a side without figures", err)
	}
}
