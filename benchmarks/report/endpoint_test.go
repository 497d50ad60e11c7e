package report

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
)

// writeEndpoint writes three rounds of the endpoint's loads.
func writeEndpoint(t *testing.T, dir string, change func(*record.SocketRow)) {
	t.Helper()
	f := record.File[record.SocketParameters, record.SocketRow]{Head: head(record.Endpoint)}
	for round := range 3 {
		for _, r := range []record.SocketRow{
			{Op: "GET", Conns: 16, Pipeline: 1}, {Op: "GET", Conns: 16, Pipeline: 64}, {Op: "SET", Conns: 16, Pipeline: 64},
			{Op: record.MultiGet, Conns: 16, Pipeline: 64},
		} {
			r.Round = round + 1
			r.Sides = map[string]record.Side{
				record.Sidecar: side(100), record.EndpointText: side(int64(80 + 10*round)), record.EndpointMeta: side(95),
				record.MemcachedText: side(60), record.MemcachedMeta: side(100),
			}
			if r.Op == record.MultiGet {
				r.Sides = map[string]record.Side{record.EndpointText: side(90), record.MemcachedText: side(60)}
			}
			change(&r)
			f.Rows = append(f.Rows, r)
		}
	}
	if err := record.Write(filepath.Join(dir, RoundsDir), f); err != nil {
		t.Fatal(err)
	}
}

func TestEndpoint(t *testing.T) {
	dir := t.TempDir()
	writeEndpoint(t, dir, func(*record.SocketRow) {})
	page := string(derive(t, dir)[Page])
	has(t, page,
		"| GET hit, 16 × 1 | endpoint, text / own protocol | 0.90 | 0.80 | 1.00 | ≥ 0.95 | **missed by 0.05** |",
		"| GET hit, 16 × 1 | endpoint, text / better of memcached's text and meta | 0.90 | 0.80 | 1.00 | – | – |",
		"| GET hit, 16 × 64 | endpoint, meta / own protocol | 0.95 | 0.95 | 0.95 | ≥ 0.95 | met |",
		"| SET, 16 × 64 | endpoint, meta / better of memcached's text and meta | 0.95 | 0.95 | 0.95 | ≥ 1 | **missed by 0.05** |",
		"| GET hits, 64 keys a line, 16 × 1 | endpoint, text / memcached, text | 1.50 | 1.50 | 1.50 | – | – |",
		"| GET hit, 16 × 64 | memcached, meta | 100,000 | 100,000 | 100,000 | 10 | 50 | 70 |",
		"3 of 10 targets are met; missed are:",
	)
	if strings.Contains(page, "64 keys a line, 16 × 1 | own protocol") {
		t.Error("a side without a command for many keys has figures of one")
	}
	writeEndpoint(t, dir, func(r *record.SocketRow) {
		if r.Round == 2 && r.Op == record.MultiGet {
			delete(r.Sides, record.MemcachedText)
		}
	})
	_, err := Section(dir, record.Endpoint)
	if want := "round 2 of GET hits, 64 keys a line, 16 × 1 has no figures of memcached-text: measure it again with \"go run ./cmd/bench memcached\""; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("a side is missing: got error %v, want %q", err, want)
	}
}
