package engine

import (
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// drain answers DRAIN.
func (h *Admin) drain(ctx context.Context, q *wire.Request, deadline time.Duration) wire.Reply {
	d := cachesidecar.Drained{Node: h.Config.Node}
	node := h.Node
	if q.Has(wire.Undo) {
		if q.Options != wire.Undo {
			return failed(wire.BadRequest, "undo stands alone: leave out force and end")
		}
		was, err := node.Undrain()
		if err != nil {
			return failed(wire.Unavailable, "%v: a drain cannot be undone any more; start it again", err)
		}
		d.Undone = was
		return wire.BodyReply(d)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline-h.Clock.Read().Boot)
	defer cancel()
	sentBefore := h.Handoff.Counts.Sent.Load()
	stop := h.LogHandover()
	done, err := node.Drain(ctx, q.Has(wire.Force))
	stop()
	switch {
	case errors.Is(err, cluster.ErrNoHeir) && node.SingleNode():
		return failed(wire.Unavailable, "%v: this host is in no cluster, and keeps its entries until it stops; "+
			"to stop it, send SIGTERM, or drain with force (--force --stop)", err)
	case errors.Is(err, cluster.ErrNoHeir):
		return failed(wire.Unavailable, "%v: start another host that joins this one, or drain with force (--force): "+
			"then its entries are gone, and its apps get misses and errors until the drain is undone", err)
	case errors.Is(err, cluster.ErrNotIn):
		return failed(wire.Unavailable, "%v, and no drain has begun: ask again", err)
	case errors.Is(err, cluster.ErrStopping):
		return failed(wire.Unavailable, "%v: it hands over what it owns by itself", err)
	case errors.Is(err, cluster.ErrUndone):
		d.Undone = true
		return wire.BodyReply(d)
	case err != nil:
		return failed(wire.Timeout, "this host is still handing over, and goes on: ask again to wait for its end")
	}
	d.Partitions, d.NotTaken, d.TookMS = done.Owned, done.Kept, done.Took.Milliseconds()
	d.Entries = h.Handoff.Counts.Sent.Load() - sentBefore
	if q.Has(wire.End) {
		h.Config.Program.Stop()
	}
	return wire.BodyReply(d)
}

// ProgressEvery is how often the log tells how far a handover is.
const ProgressEvery = 5 * time.Second

// LogHandover logs how far a handover is, until stop is called.
func (h *Admin) LogHandover() (stop func()) {
	n := h.Store.Stats().Entries
	ctx, stop := context.WithCancel(context.Background())
	sentBefore := h.Handoff.Counts.Sent.Load()
	go func() { // ends with stop
		for kv.Sleep(ctx, ProgressEvery) {
			if h.Handoff.OpenOffers() > 0 {
				h.Config.Log.Info("handing over", "entries", min(h.Handoff.Counts.Sent.Load()-sentBefore, n), "of", n)
			}
		}
	}()
	return stop
}
