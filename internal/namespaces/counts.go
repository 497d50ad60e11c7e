package namespaces

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Outcome is how a request ended, for the counters.
type Outcome uint8

const (
	HitL1 Outcome = iota
	HitL2
	HitPeer   // the owner had it
	HitShared // the app found it in the shared memory, and has reported that
	HitNear   // in its near cache, likewise
	Loaded    // the origin had it
	Done
	Miss
	MissShared // the app found in the shared memory that the origin has no such key
	Stale
	Refused // a condition was not met
	Failed
	Outcomes
)

// mostReported is where counts of reports end, so that no sum of them overflows, whatever apps
// report.
const mostReported = 1 << 50

// AddReported adds what an app reports to a count.
func AddReported(count *atomic.Int64, n uint32) {
	if n > 0 && count.Load() < mostReported {
		count.Add(int64(n))
	}
}

// HitOf returns the outcome of a read that returned a value from the given source.
func HitOf(s wire.Source) Outcome {
	switch s {
	case wire.SourceL1:
		return HitL1
	case wire.SourcePeer:
		return HitPeer
	case wire.SourceOrigin:
		return Loaded
	}
	return HitL2
}

// OutcomeOf returns the outcome of a request that was answered with r.
func OutcomeOf(r *wire.Reply) Outcome {
	switch r.Status {
	case wire.OK:
		return Done
	case wire.Miss, wire.Lease:
		return Miss
	case wire.Stale:
		return Stale
	case wire.Exists, wire.NotStored:
		return Refused
	}
	return Failed
}

// Recent is a moving mean of durations: each new one counts for an eighth.
type Recent struct{ v atomic.Int64 }

// Add adds a duration.
func (r *Recent) Add(d time.Duration) {
	old := r.v.Load()
	if old == 0 {
		r.v.Store(int64(d))
		return
	}
	r.v.Add((int64(d) - old) / 8)
}

// Mean returns the mean; zero if there is none yet.
func (r *Recent) Mean() time.Duration { return time.Duration(r.v.Load()) }

// LoadTimeHelp is the help text of the histogram LoadTime.
const LoadTimeHelp = "Duration of loads from an origin in seconds, waits and retries included."

func newLoadTime(namespace string) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:        "cachesidecar_load_duration_seconds",
		Help:        LoadTimeHelp,
		ConstLabels: prometheus.Labels{"namespace": namespace},
		Buckets:     prometheus.ExponentialBuckets(0.0005, 2, 16),
	})
}
