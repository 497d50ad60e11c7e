package sidecar

import (
	"context"
	"time"

	"github.com/prometheus/procfs"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
)

// Values at which this host has reached the limit of what it can bear.
const (
	fullBatch   = 2 * time.Millisecond // mean time from a batch's read to its answers' write
	fullWaiting = 4096                 // requests that wait: see Engine.Waiting
	adaptEvery  = time.Second
)

// adapt adjusts the host's weight to its pressure until ctx ends.
func (s *Sidecar) adapt(ctx context.Context) {
	full := s.weight.Load()
	a := cluster.NewAdaptiveWeight(full)
	t := time.NewTicker(adaptEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := s.weight.Load(); now != full {
			full, a = now, cluster.NewAdaptiveWeight(now)
			s.engine.Node.SetWeight(now)
		}
		p := s.pressure()
		if a.Step(s.engine.Clock.Read().Boot, p) {
			s.cfg.Log.Info("this host's weight follows its pressure",
				"weight", a.Weight(), "of", full, "pressure", p)
			s.engine.Node.SetWeight(a.Weight())
		}
	}
}

// pressure returns the highest pressure on this host, as a fraction of what the host can
// bear.
func (s *Sidecar) pressure() float64 {
	return max(
		float64(s.engine.Waiting.Load())/fullWaiting,
		float64(s.batches.take())/float64(fullBatch),
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
