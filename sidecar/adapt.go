package sidecar

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/machine"
)

// Values at which this host has reached the limit of what it can bear.
const (
	fullBatch   = 2 * time.Millisecond // mean time from a batch's read to its answers' write
	fullWaiting = 4096                 // requests that wait: see Engine.Waiting
	adaptEvery  = time.Second
)

// meanTime is a mean that starts anew each time it is taken.
type meanTime struct{ n, sum atomic.Int64 }

func (m *meanTime) add(d time.Duration) {
	m.n.Add(1)
	m.sum.Add(int64(d))
}

func (m *meanTime) take() time.Duration {
	n, sum := m.n.Swap(0), m.sum.Swap(0)
	if n == 0 {
		return 0
	}
	return time.Duration(sum / n)
}

// adapt adjusts the host's weight to its pressure until ctx ends.
func (s *Sidecar) adapt(ctx context.Context) {
	a := cluster.NewAdaptive(s.cfg.Weight)
	t := time.NewTicker(adaptEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		p := s.pressure()
		if a.Step(s.engine.Clock.Read().Boot, p) {
			s.cfg.Log.Info("this host's weight follows its pressure",
				"weight", a.Weight(), "of", s.cfg.Weight, "pressure", p)
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
		machine.Pressure(),
	)
}
