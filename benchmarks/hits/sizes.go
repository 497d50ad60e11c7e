package hits

import (
	"math"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/record"
	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Size is one size of cache to replay against.
type Size struct {
	Unit  string // record.Entries or record.Bytes
	N     int64
	Sweep bool // for the plot alone
}

// known are the sizes for the tables, in entries, of the traces that the
// results are of.
var known = map[string][]int64{
	"cache2k-web07":    {1000, 4000},
	"cache2k-web12":    {700, 2800},
	"cache2k-orm-busy": {760, 3800, 15000},
	"arc-OLTP":         {1000, 2000, 5000, 15000},
	"arc-P6":           {40000, 160000},
}

// derived are the sizes for the tables of other traces, and of all where bytes
// are counted: parts of what the trace has in all.
var derived = []float64{0.001, 0.01, 0.1}

// The sweep goes from one part of a trace's keys to another.
const (
	sweepFirst = 0.005
	sweepLast  = 0.5
)

// leastEntries is the smallest cache that is replayed: its store has as many
// segments as in the product.
const leastEntries = segments * perLeast

// Footprint is how much there is in a trace to cache.
type Footprint struct {
	Keys  int64
	Bytes int64 // of keys and values; zero where the trace has no sizes
}

// FootprintOf counts the unique keys, each with the size that it has first.
func FootprintOf(requests []trace.Request) Footprint {
	seen := make(map[uint64]struct{})
	var f Footprint
	sized := false
	for _, q := range requests {
		if _, ok := seen[q.Key]; !ok {
			seen[q.Key] = struct{}{}
			f.Bytes += int64(q.Size) + keySize
			sized = sized || q.Size > 0
		}
	}
	if f.Keys = int64(len(seen)); !sized {
		f.Bytes = 0
	}
	return f
}

// Sizes are those that a trace is replayed at: for the tables, and with points
// for the plot between a small part of its keys and half of them.
func Sizes(name string, f Footprint, points int) (list []Size) {
	entries := known[name]
	if entries == nil {
		for _, part := range derived {
			entries = append(entries, int64(part*float64(f.Keys)))
		}
	}
	have := map[int64]bool{}
	add := func(n int64, sweep bool) {
		if n >= leastEntries && !have[n] {
			have[n] = true
			list = append(list, Size{record.Entries, n, sweep})
		}
	}
	for _, n := range entries {
		add(n, false)
	}
	first := max(leastEntries, sweepFirst*float64(f.Keys))
	last := sweepLast * float64(f.Keys)
	for i := range points {
		if last > first {
			add(int64(math.Round(first*math.Pow(last/first, float64(i)/float64(max(points-1, 1))))), true)
		}
	}
	if f.Bytes > 0 {
		for _, part := range derived {
			if n := int64(part * float64(f.Bytes)); n >= segment.MinSize {
				list = append(list, Size{record.Bytes, n, false})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Size) int {
		if a.Unit != b.Unit { // entries first
			if a.Unit == record.Entries {
				return -1
			}
			return 1
		}
		return int(a.N - b.N)
	})
	return list
}
