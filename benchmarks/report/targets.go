package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// target is what a figure is to reach. It is held against the median.
type target struct {
	sign  string // ≥, >, ≤ or <
	value float64
}

// The project's targets.
var (
	getOfEcho     = &target{"≥", 0.9} // a GET hit, one at a time, against the echo server
	ahead         = &target{">", 1}   // against redis and memcached
	batchOfBetter = &target{"≥", 2}   // a GET hit in batches, against the better of both

	residentOfMemcached = &target{"≤", 0.85}
	overheadBytes       = &target{"≤", 48} // an entry, all in

	gcShare = &target{"<", 1} // % of CPU
	gcPause = &target{"<", 1} // ms
	// "Unchanged": within what the figure varies by on a quiet machine.
	p99OfFew = &target{"≤", 1.1}

	copyOfOwned = &target{"≥", 0.9} // "as fast": a GET of a copy against one of the host's own
	hopsOfEcho  = &target{"≤", 1.5} // the owner's answer against two round trips
	killErrors  = &target{"≤", 0}   // reads through hosts that live
	killSeconds = &target{"≤", 4.5}

	reachP50 = &target{"≤", 1} // ms, an invalidation to all of 5 hosts
	reachP99 = &target{"≤", 5}

	onceCalls   = &target{"≤", 1}    // of the origin, however many miss a key
	crowdOthers = &target{"≤", 0}    // requests
	servedRatio = &target{"≥", 0.98} // hits with an origin against hits without: "none measurable" is within what the figure varies by
	outErrors   = &target{"≤", 0}    // of reads of keys that were loaded once, that take a stale value
	backCalls   = &target{"≤", 1.1}  // in the busiest second, of the configured rate; a burst is a tenth of it

	hitsOfLRU     = &target{"≥", -1}   // points, on each trace at each size
	hitsOfLRUBusy = &target{"≥", -2.5} // the same, for the one below
	hitsMean      = &target{"≥", 2}    // points, over all of them
)

// busyTrace at busySize has a target of its own: its requests come in bursts
// within a few hundred entries, where recency alone is hard to beat.
const (
	busyTrace = "cache2k-orm-busy"
	busySize  = 760
)

func (t *target) String() string {
	if t == nil {
		return "–"
	}
	return t.sign + " " + minus(strconv.FormatFloat(t.value, 'f', -1, 64))
}

func (t *target) met(v float64) bool {
	switch t.sign {
	case "≥":
		return v >= t.value
	case ">":
		return v > t.value
	case "≤":
		return v <= t.value
	}
	return v < t.value
}

// verdict says whether a value reaches the target, and else by how much it
// does not.
func (t *target) verdict(v float64) string {
	switch {
	case t == nil:
		return "–"
	case t.met(v):
		return "met"
	}
	return fmt.Sprintf("**missed by %.2g**", math.Abs(v-t.value))
}

// spread is the median, least and most of one figure over the rounds.
type spread struct{ median, least, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	v := slices.Sorted(slices.Values(values))
	mid := len(v) / 2
	median := v[mid]
	if len(v)%2 == 0 {
		median = (v[mid-1] + v[mid]) / 2
	}
	return spread{median, v[0], v[len(v)-1]}
}

// row is one figure with its target, if it has one.
type row struct {
	what, figure string
	spread       spread
	format       string // of its numbers
	target       *target
}

// rowsTable writes rows as a table.
func rowsTable(rows []row) string {
	t := table{head: []string{"what", "figure", "median", "min", "max", "target", ""}, left: 2}
	for _, r := range rows {
		n := func(v float64) string { return minus(fmt.Sprintf(r.format, v)) }
		t.add(r.what, r.figure, n(r.spread.median), n(r.spread.least), n(r.spread.most), r.target.String(), r.target.verdict(r.spread.median))
	}
	return t.String()
}
