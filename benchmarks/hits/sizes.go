package hits

import (
	"cmp"
	"math"
	"slices"

	"github.com/cachesidecar/cachesidecar/benchmarks/trace"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Units of a cache's size.
const (
	Entries = "entries"
	Bytes   = "bytes"
)

// Size is one cache size of a replay.
type Size struct {
	Unit  string
	N     int64
	Sweep bool // for the plot only
}

// known are the sizes in entries for the tables of the traces in the published results.
var known = map[string][]int64{
	"cache2k-web07":    {1000, 4000},
	"cache2k-web12":    {700, 2800},
	"cache2k-orm-busy": {760, 3800, 15000},
	"arc-OLTP":         {1000, 2000, 5000, 15000},
	"arc-P6":           {40000, 160000},
}

// derived are the sizes for the tables of all other traces, and of all traces if bytes
// are counted. They are fractions of the trace's footprint.
var derived = []float64{0.001, 0.01, 0.1}

// The sweep covers this range, in fractions of a trace's keys.
const (
	sweepFirst = 0.005
	sweepLast  = 0.5
)

// leastEntries is the smallest cache that is replayed, so that its store has as many
// segments as in the product.
const leastEntries = segments * perLeast

// Footprint is the amount of cacheable data in a trace.
type Footprint struct {
	Keys  int64
	Bytes int64 // of keys and values; zero if the trace has no sizes
}

// FootprintOf counts the unique keys. Each counts with the size of its first request.
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

// Sizes returns the sizes at which a trace is replayed: those of the tables, and the
// given number of points for the plot, from a small part of the trace's keys to half of
// them.
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
			list = append(list, Size{Entries, n, sweep})
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
				list = append(list, Size{Bytes, n, false})
			}
		}
	}
	slices.SortStableFunc(list, func(a, b Size) int { // entries come before bytes
		return cmp.Or(-cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.N, b.N))
	})
	return list
}
