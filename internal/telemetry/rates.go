package telemetry

import "github.com/cachesidecar/cachesidecar"

// Rates says what the apps of a namespace, a host or a cluster do in each second.
type Rates struct {
	Reads, Writes, Loads, Errors float64 // deletions are writes
	Hits                         float64 // share of the reads, 0 to 1; negative: there are none
}

// RatesOf returns the rates between two readings of the same counters. All are negative if no time has passed.
func RatesOf(now, last *cachesidecar.NamespaceStats, seconds float64) Rates {
	if seconds <= 0 {
		return Rates{-1, -1, -1, -1, -1}
	}
	r := Rates{
		Reads:  Rate(now.Reads(), last.Reads(), seconds),
		Writes: Rate(now.Writes+now.Deletes, last.Writes+last.Deletes, seconds),
		Loads:  Rate(now.Loads.Loads, last.Loads.Loads, seconds),
		Errors: Rate(now.Errors, last.Errors, seconds),
		Hits:   -1,
	}
	if r.Reads > 0 {
		r.Hits = Rate(now.Hits, last.Hits, seconds) / r.Reads
	}
	return r
}

// Rate returns the increase of a counter per second; zero if the counter began anew.
func Rate(now, last int64, seconds float64) float64 { return max(float64(now-last), 0) / seconds }
