package report

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

func writeCost(t *testing.T, dir string, change func(*record.CostRow)) {
	t.Helper()
	f := record.File[record.CostParameters, record.CostRow]{Head: head(record.Cost)}
	of := func(us, thousands float64) record.CostSide {
		return record.CostSide{Requests: int64(thousands * 1000), Seconds: 1, CPU: us * thousands / 1000}
	}
	for round := range 3 {
		for _, beside := range []string{record.Nothing, record.Spinners} {
			for _, conns := range []int{1, 16, 64} {
				r := record.CostRow{Round: round + 1, Beside: beside, Op: "GET", Conns: conns, Sides: map[string]record.CostSide{
					record.Sidecar: of(9, 120), record.EndpointText: of(float64(10+round), 90),
					record.MemcachedText: of(10, 100), record.MemcachedTuned: of(7, 100), record.Bare: of(8, 110),
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

func TestCost(t *testing.T) {
	dir := t.TempDir()
	writeCost(t, dir, func(*record.CostRow) {})
	has(t, string(derive(t, dir)[Page]),
		"| GET, 1 × 1 | CPU, endpoint / bare | 1.38 | 1.25 | 1.50 | ≤ 1.15 | **missed by 0.23** |",
		"| GET, 1 × 1 | requests/s, endpoint / memcached | 0.90 | 0.90 | 0.90 | ≥ 0.9 | met |",
		"| GET, 16 × 1 | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1 | **missed by 0.1** |",
		"| GET, 16 × 1, beside processes that spin | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1 | **missed by 0.1** |",
		"| GET, 64 × 1 | CPU, endpoint / memcached | 1.10 | 1.00 | 1.20 | ≤ 1.1 | met |",
		"| GET, 16 × 1 | 0.90, 1.20 | 1.10, 0.90 | 0.70, 1.00 | 0.80, 1.10 |",
		"| GET, 16 × 1 | 9.0 µs, 120,000/s | 11.0 µs, 90,000/s | 10.0 µs, 100,000/s | 7.0 µs, 100,000/s | 8.0 µs, 110,000/s |",
	)
	writeCost(t, dir, func(r *record.CostRow) {
		if r.Round == 2 && r.Conns == 16 {
			delete(r.Sides, record.Bare)
		}
	})
	_, err := Section(dir, record.Cost)
	if want := "round 2 of GET × 16 has no figures of bare: measure it again with \"go run ./cmd/bench cost\""; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a side is missing: got error %v, want %q", err, want)
	}
}
