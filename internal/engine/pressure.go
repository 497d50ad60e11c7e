package engine

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/prometheus/procfs"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Values at which this host has reached the limit of what it can bear.
const (
	fullBatch   = 2 * time.Millisecond // mean time from a batch's read to its answers' write
	fullWaiting = 4096                 // requests that wait: see Engine.Waiting
	adaptEvery  = time.Second
)

// Pressure tells how near this host is to what it can bear, and can lower its weight by it.
type Pressure struct {
	*deps
	waiting *atomic.Int64 // Engine.Waiting
	batches meanTime      // since the last reading
}

// NoteBatch notes how long a batch took.
func (pr *Pressure) NoteBatch(took time.Duration) { pr.batches.add(took) }

// Adapt adjusts the host's weight to its pressure until ctx ends. weight returns what is configured now.
func (pr *Pressure) Adapt(ctx context.Context, weight func() uint32) {
	full := weight()
	a := cluster.NewAdaptiveWeight(full)
	for range kv.Every(ctx, adaptEvery) {
		if now := weight(); now != full {
			full, a = now, cluster.NewAdaptiveWeight(now)
			pr.Node.SetWeight(now)
		}
		highest := pr.highest()
		if a.Step(pr.Clock.Read().Boot, highest) {
			pr.Config.Log.Info("this host's weight follows its pressure",
				"weight", a.Weight(), "of", full, "pressure", highest)
			pr.Node.SetWeight(a.Weight())
		}
	}
}

// highest returns the highest pressure on this host, as a fraction of what the host can
// bear.
func (pr *Pressure) highest() float64 {
	return max(
		float64(pr.waiting.Load())/fullWaiting,
		float64(pr.batches.takeMean())/float64(fullBatch),
		machinePressure(),
	)
}

// Percent of the time in which a task waited for a resource, at which the machine has
// reached the limit of what it can bear.
const (
	fullCPU    = 50.0
	fullMemory = 10.0
)

// machinePressure returns the highest pressure on processors and memory in the last ten seconds,
// as a fraction of what the machine can bear (pressure stall information, Linux). A resource that
// the system does not report counts as no pressure.
func machinePressure() (p float64) {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return 0
	}
	for resource, full := range map[string]float64{"cpu": fullCPU, "memory": fullMemory} {
		if st, err := fs.PSIStatsForResource(resource); err == nil && st.Some != nil {
			p = max(p, st.Some.Avg10/full)
		}
	}
	return p
}

// meanTime is a mean that starts anew each time it is taken.
type meanTime struct{ n, sum atomic.Int64 }

func (mean *meanTime) add(d time.Duration) {
	mean.n.Add(1)
	mean.sum.Add(int64(d))
}

func (mean *meanTime) takeMean() time.Duration {
	n, sum := mean.n.Swap(0), mean.sum.Swap(0)
	if n == 0 {
		return 0
	}
	return time.Duration(sum / n)
}
