package sidecar

import (
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With warm_on_start a host that has begun loads the keys of a list that it holds
// by then, so that they need not be missed first. It does so as a read would, once,
// at a rate, and behind everything else.

// warming is a namespace's.
type warming struct {
	lister loader.Lister
	rate   float64 // loads per second
	keys   int     // of this host, at most

	loaded, absent, failed atomic.Int64
	state                  atomic.Pointer[string]
}

// States of warming.
const (
	warmWaiting = "waiting"
	warmRunning = "running"
	warmDone    = "done"
	warmFailed  = "failed"
)

func newWarming(cfg *warmSpec, lister loader.Lister) *warming {
	w := &warming{lister: lister, rate: cfg.Rate, keys: cfg.Keys}
	w.is(warmWaiting)
	return w
}

func (w *warming) is(state string) { w.state.Store(&state) }

func (w *warming) count(r *wire.Reply) {
	switch r.Status {
	case wire.OK:
		w.loaded.Add(1)
	case wire.Miss:
		w.absent.Add(1)
	case wire.Moved: // another host's by now
	default:
		w.failed.Add(1)
	}
}

func (ns *namespace) warmStats() (s wire.WarmStats) {
	if w := ns.warming; w != nil {
		s = wire.WarmStats{State: *w.state.Load(), Loaded: w.loaded.Load(), Absent: w.absent.Load(), Failed: w.failed.Load()}
	}
	return s
}
