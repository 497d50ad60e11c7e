package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/engine"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// moveOn is how long apps have to move on once they are told that the socket closes: to
// get the answers that are on their way, and to fill what they have been given tokens
// for.
const moveOn = 2 * time.Second

// ending takes a sidecar out of service, step by step, each of which the log has.
type ending struct {
	engine   *engine.Engine
	sessions *session.Sessions
	log      *slog.Logger
	begun    chan struct{} // closed when Run begins to end

	mu     sync.Mutex
	cancel func()      // makes Run end; nil before it
	late   *time.Timer // see endWrites; nil before the end
}

// starts returns the context of a Run, whose end begins the end.
func (e *ending) starts(ctx context.Context) (own context.Context, stop func()) {
	own, cancel := context.WithCancel(ctx)
	e.mu.Lock()
	e.cancel = cancel
	e.mu.Unlock()
	forget := context.AfterFunc(own, func() { close(e.begun) })
	return own, func() {
		if !forget() { // ctx has ended: begun is closed before Run returns, however fast that is
			<-e.begun
		}
		cancel()
	}
}

// drain answers DRAIN.
func (e *ending) drain(ctx context.Context, q *wire.Request, deadline time.Duration) wire.Reply {
	d := cachesidecar.Drained{Node: e.engine.Config.Node}
	node := e.engine.Node
	if q.Has(wire.Undo) {
		if q.Options != wire.Undo {
			return refused(wire.BadRequest, "undo stands alone: leave out force and end")
		}
		was, err := node.Undrain()
		if err != nil {
			return refused(wire.Unavailable, "%v: a drain cannot be undone any more; start it again", err)
		}
		d.Undone = was
		return wire.BodyReply(d)
	}
	ctx, cancel := context.WithTimeout(ctx, deadline-e.engine.Clock.Read().Boot)
	defer cancel()
	sentBefore := e.engine.Handoff.Counts.Sent.Load()
	stop := e.progress()
	h, err := node.Drain(ctx, q.Has(wire.Force))
	stop()
	switch {
	case errors.Is(err, cluster.ErrNoHeir) && node.SingleNode():
		return refused(wire.Unavailable, "%v: this host is in no cluster, and keeps its entries until it stops; "+
			"to stop it, send SIGTERM, or drain with force (--force --stop)", err)
	case errors.Is(err, cluster.ErrNoHeir):
		return refused(wire.Unavailable, "%v: start another host that joins this one, or drain with force (--force): "+
			"then its entries are gone, and its apps get misses and errors until the drain is undone", err)
	case errors.Is(err, cluster.ErrNotIn):
		return refused(wire.Unavailable, "%v, and no drain has begun: ask again", err)
	case errors.Is(err, cluster.ErrStopping):
		return refused(wire.Unavailable, "%v: it hands over what it owns by itself", err)
	case errors.Is(err, cluster.ErrUndone):
		d.Undone = true
		return wire.BodyReply(d)
	case err != nil:
		return refused(wire.Timeout, "this host is still handing over, and goes on: ask again to wait for its end")
	}
	d.Partitions, d.NotTaken, d.TookMS = h.Owned, h.Kept, h.Took.Milliseconds()
	d.Entries = e.engine.Handoff.Counts.Sent.Load() - sentBefore
	if q.Has(wire.End) {
		e.end()
	}
	return wire.BodyReply(d)
}

func refused(status wire.Status, format string, args ...any) wire.Reply {
	return wire.ErrorReply(wire.Errorf(status, format, args...))
}

// end makes Run end as if its context had ended.
func (e *ending) end() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cancel != nil {
		e.cancel()
	}
}

// depart takes this host out of the cluster while the socket still serves.
func (e *ending) depart(ctx context.Context) {
	e.log.Info("stopping: this host leaves the cluster first, and serves its apps meanwhile")
	e.engine.Node.AwaitVoters(ctx)
	e.endWrites()
	defer e.progress()()
	e.engine.Node.HandOver(ctx)
}

// leave ends what runs the cluster's node, which says goodbye. Writes to origins end before that.
func (e *ending) leave(cluster *layer) error {
	defer e.endWrites().Stop()
	e.late.Reset(writesEndAfter)
	cluster.stop()
	return cluster.Wait()
}

// progressEvery is how often the log tells how far a handover is.
const progressEvery = 5 * time.Second

// progress logs how far a handover is, until stop is called.
func (e *ending) progress() (stop func()) {
	h, n := e.engine.Handoff, e.engine.Store.Stats().Entries
	ctx, stop := context.WithCancel(context.Background())
	sentBefore := h.Counts.Sent.Load()
	go func() { // ends with stop
		for kv.Sleep(ctx, progressEvery) {
			if h.OpenOffers() > 0 {
				e.log.Info("handing over", "entries", min(h.Counts.Sent.Load()-sentBefore, n), "of", n)
			}
		}
	}()
	return stop
}

// goaway tells apps to move on, and waits until they have, once no new connections are
// accepted. Then it answers the requests that wait for others.
func (e *ending) goaway() {
	if told, stay := e.sessions.Leave(moveOn); told > 0 {
		e.log.Info("apps were told to move on", "connections", told, "still_open", stay)
	}
	e.engine.Watches.Stop()
	e.engine.LeaseTokens.Close()
}

// writesEndAfter is the least time that writes to origins have: 2.5 s less than this host waits, at its end,
// until others know how they have ended.
const writesEndAfter = 7500 * time.Millisecond

// endWrites cancels the writes to origins soon: it leaves time to tell other hosts about
// their end.
func (e *ending) endWrites() *time.Timer {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.late == nil {
		e.late = time.AfterFunc(max(writesEndAfter, e.engine.Node.LeaveTime()*3/4), e.engine.Namespaces.EndWrites)
	}
	return e.late
}

// stopped logs the end and returns its error, which is nil if ctx of Run has ended.
func (e *ending) stopped(err error) error {
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	reads, writes := e.engine.Namespaces.Served()
	if err != nil {
		e.log.Error("stopped, because of an error", "error", err, "reads", reads, "writes", writes)
	} else {
		e.log.Info("stopped", "reads", reads, "writes", writes)
	}
	return err
}
