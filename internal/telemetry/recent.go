package telemetry

import (
	"context"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// The requests of the last recentSteps steps are recent. Another step begins each recentStep.
const (
	recentStep  = 10 * time.Second
	recentSteps = 6
)

// recent has the counts of requests at the begin of each step, the oldest first. The first
// ones, all zero, are those of the start.
type recent struct {
	mu    sync.Mutex
	steps []step
}

type step struct {
	began  time.Duration // on the boot clock
	counts map[string]counted
}

// counted is the requests of a namespace since the start, and what was evicted over its quota.
type counted struct{ requests, errors, evicted int64 }

// Run begins the steps, until ctx ends.
func (s *Telemetry) Run(ctx context.Context) {
	for range kv.Every(ctx, recentStep) {
		s.step()
	}
}

// step begins a step.
func (s *Telemetry) step() {
	next := step{s.Engine.Clock.Read().Boot, s.requestCounts()}
	r := &s.recent
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.steps = append(r.steps, next); len(r.steps) > recentSteps {
		r.steps = append(r.steps[:0], r.steps[1:]...)
	}
}

// requestCounts returns the present requestCounts, by namespace.
func (s *Telemetry) requestCounts() map[string]counted {
	counts := map[string]counted{}
	for name, ns := range s.Engine.Namespaces.All() {
		var c counted
		c.requests, c.errors = ns.Requests()
		c.evicted = s.Engine.Namespaces.Store.NamespaceStats(ns.ID).QuotaEvicted
		counts[name] = c
	}
	return counts
}

// stats returns the requests of a namespace since the begin of the oldest step.
func (r *recent) stats(name string, now time.Duration, c counted) cachesidecar.RecentStats {
	r.mu.Lock()
	oldest := r.steps[0]
	r.mu.Unlock()
	was := oldest.counts[name]
	if c.requests < was.requests || c.evicted < was.evicted { // another namespace of that name
		was = counted{}
	}
	return cachesidecar.RecentStats{
		WindowMS: (now - oldest.began).Milliseconds(),
		Requests: c.requests - was.requests, Errors: c.errors - was.errors, Evicted: c.evicted - was.evicted,
	}
}
