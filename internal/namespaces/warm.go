package namespaces

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// With warm_on_start a host that has begun loads those keys of a list that it owns by
// then, so that the first reads do not miss them. It loads each key once, as a read
// would, at a bounded rate, and after everything else.

// Warming is the warming of a namespace.
type Warming struct {
	Rate float64 // loads per second
	Keys int     // of this host, at most

	Loaded, Absent, Failed atomic.Int64
	state                  atomic.Pointer[string]
}

// States of warming.
const (
	warmWaiting = "waiting"
	WarmRunning = "running"
	WarmDone    = "done"
	WarmFailed  = "failed"
)

func newWarming(cfg *WarmSettings) *Warming {
	w := &Warming{Rate: cmp.Or(cfg.Rate, 1000), Keys: cmp.Or(cfg.Keys, 1_000_000)}
	w.Is(warmWaiting)
	return w
}

// WarmLister waits until the origin that the name has by then has agreed, and returns its list of the keys
// to be loaded. The origin stays open until leave is called. An error says that there is no list, or that
// ctx has ended.
func (ns *Namespace) WarmLister(ctx context.Context) (list loader.Lister, leave func(), err error) {
	for {
		asked := ns.Now().Origin
		if asked == nil {
			return nil, nil, errors.New("the origin has been taken out of the configuration")
		}
		if !asked.Agrees(ctx) {
			return nil, nil, ctx.Err()
		}
		o, err := ns.enterOrigin()
		switch {
		case err != nil:
			return nil, nil, err
		case o == asked && o.Warm != nil:
			return o.Warm, o.Release, nil
		}
		if o.Release(); o == asked {
			return nil, nil, errors.New("the origin that a reload has brought lists no keys: restart this host")
		} // else a reload has put another in its place
	}
}

// Is sets the state.
func (w *Warming) Is(state string) { w.state.Store(&state) }

// Count counts the result of a load.
func (w *Warming) Count(r *wire.Reply) {
	switch r.Status {
	case wire.OK:
		w.Loaded.Add(1)
	case wire.Miss:
		w.Absent.Add(1)
	case wire.Moved: // another host owns it by now
	default:
		w.Failed.Add(1)
	}
}

// WarmStats returns the warming's part of STATS; zero without warming.
func (ns *Namespace) WarmStats() (s cachesidecar.WarmStats) {
	if w := ns.Warming; w != nil {
		s = cachesidecar.WarmStats{
			State: *w.state.Load(), Loaded: w.Loaded.Load(), Absent: w.Absent.Load(), Failed: w.Failed.Load(),
		}
	}
	return s
}
