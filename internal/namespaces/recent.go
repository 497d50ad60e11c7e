package namespaces

import (
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

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
