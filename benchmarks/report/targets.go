package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"
)

// target is the goal for a figure. It is compared with the median.
type target struct {
	sign  string // ≥, >, ≤ or <
	value float64
}

// The project's targets.
var (
	getOfEcho     = &target{"≥", 0.9} // a GET hit, one at a time, against the echo server
	ahead         = &target{">", 1}   // against redis and memcached
	batchOfBetter = &target{"≥", 2}   // a GET hit in batches, against the better of both
	p99NoWorse    = &target{"≤", 1}   // one at a time

	// The endpoint for memcached's protocol.
	endpointOfOwn       = &target{"≥", 0.95} // against the socket of the same sidecar
	endpointOfMemcached = &target{"≥", 1}    // in batches, against the better of its text and meta commands

	// What a request costs that is alone on its connection.
	costOfMemcached      = &target{"≤", 1}
	costOfMemcachedMany  = &target{"≤", 1.1} // 64 connections
	costOfBare           = &target{"≤", 1.25}
	costOfBareAlone      = &target{"≤", 1.15} // one connection
	rateOfMemcached      = &target{"≥", 1}
	rateOfMemcachedAlone = &target{"≥", 0.9}
	steadyOfMemcached    = &target{"≤", 1.15} // p99 at a steady rate

	clientOfOthers   = &target{"≥", 1}   // one goroutine, over the socket
	clientOfBest     = &target{"≥", 1.2} // some goroutines
	clientOfBestMany = &target{"≥", 2}   // many
	sharedOfOthers   = &target{"≥", 50}  // shared memory against others' sockets
	sharedNS         = &target{"≤", 250}

	// Clients in other languages.
	getOfPeers   = &target{"≤", 1}  // time of a GET in Python, over the socket
	tasksOfPeers = &target{"≥", 2}  // calls a second of an event loop in Python
	nodeOfPeers  = &target{"≥", 1}  // calls a second in Node, one at a time
	hitUS        = &target{"≤", 2}  // a hit in the process
	hitUSPure    = &target{"≤", 10} // the same without the client's extension

	residentOfMemcached = &target{"≤", 0.85}
	overheadBytes       = &target{"≤", 48} // per entry, everything included

	gcShare = &target{"<", 1} // % of CPU
	gcPause = &target{"<", 1} // ms
	// Of the same keys. "Unchanged": within the variation of the figure on a quiet machine.
	p99OfFew = &target{"≤", 1.1}

	// A feed of changes from PostgreSQL, against a bare reader of its stream.
	feedP50  = &target{"≤", 3}
	feedP99  = &target{"≤", 4}
	feedRows = &target{"≥", 0.5}
	feedCost = &target{"≥", 0.97} // pgbench, against none

	idleKiB = &target{"≤", 12} // an idle connection

	// "As fast": a GET of a copy against one of the host's own.
	copyOfOwned = &target{"≥", 0.9}
	hopsOfEcho  = &target{"≤", 1.5} // the owner's answer against two round trips
	killErrors  = &target{"≤", 0}   // reads through hosts that live
	killSeconds = &target{"≤", 4.5}

	reachP50 = &target{"≤", 1} // ms, an invalidation to all of 5 hosts
	reachP99 = &target{"≤", 5}

	// Calls of the origin, for any number of misses of a key.
	onceCalls   = &target{"≤", 1}
	crowdOthers = &target{"≤", 0} // requests
	// Hits with an origin against hits without: "none measurable" means within the
	// figure's variation.
	servedRatio = &target{"≥", 0.98}
	// Of reads that accept a stale value, for keys that were loaded once.
	outErrors = &target{"≤", 0}
	// In the busiest second, relative to the configured rate; the burst is a tenth of it.
	backCalls = &target{"≤", 1.1}

	overGoodput  = &target{"≥", 0.8} // of the peak
	overP99      = &target{"≤", 5}   // of the p99 below saturation
	overBusy     = &target{"≤", 5}   // ms
	scrapedRatio = &target{"≥", 0.97}

	hitsOfLRU     = &target{"≥", -1}   // points, on each trace at each size
	hitsOfLRUBusy = &target{"≥", -2.5} // the same, for busyTrace at busySize
	hitsMean      = &target{"≥", 2}    // points, over all traces and sizes
)

// busyTrace at busySize has a target of its own. Its requests come in bursts within a few
// hundred entries, where plain recency is hard to beat.
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

// verdict returns "met", or by how much a value misses the target.
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

// rowsTable formats rows as a table.
func rowsTable(rows []row) string {
	t := table{head: []string{"what", "figure", "median", "min", "max", "target", ""}, left: 2}
	for _, r := range rows {
		n := func(v float64) string { return minus(fmt.Sprintf(r.format, v)) }
		t.add(r.what, r.figure, n(r.spread.median), n(r.spread.least), n(r.spread.most), r.target.String(), r.target.verdict(r.spread.median))
	}
	return t.String()
}
