package engine

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/calls"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Answer answers a request of the embedding program, wherever its keys are, on the caller's goroutine. The
// values of the reply are the caller's own. The caller keeps the engine open.
func (e *Engine) Answer(ctx context.Context, q *wire.Request) (r wire.Reply, err error) {
	pins, now := namespaces.Pins{Table: e.Namespaces}, e.Clock.Read()
	defer pins.Release()
	e.Node.CheckPause(now.Boot)
	deadline, until := e.Deadlines.Of(q, now), now.Boot+e.Deadlines.Timeout(q)
	if d, ok := ctx.Deadline(); ok {
		left := time.Until(d)
		deadline = now.Boot + left
		until = deadline
		q.TimeoutMS = uint32(min(max(left.Milliseconds(), 1), wire.MaxTimeout))
	}
	e.Deadlines.Limit(q, until)
	// Other hosts may own some of several keys.
	many := q.Op == wire.OpMGet || q.Op == wire.OpDelete && !e.Node.SingleNode()
	if r = Moved(); !many && !e.Acks.Wanted(q) {
		r = e.Execute(q, &pins, now, 0)
	}
	if r.Status == wire.Moved {
		if err := loadsItself(ctx, q); err != nil {
			return r, err
		}
		r = e.Serve(ctx, q, &pins, deadline)
		unshare(&r)
	}
	e.Count(q, &r)
	return r, calls.Err(&r)
}

// Serve is ServeNow, but also waits until all hosts have acknowledged a write with ack=all.
func (e *Engine) Serve(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	r := e.ServeNow(ctx, q, pins, deadline)
	if e.Acks.Wanted(q) {
		pins.Release()
		r = e.Acks.Wait(ctx, q, r, deadline)
	}
	return r
}

// loadsItself returns an error if an origin asks for a key that it loads.
func loadsItself(ctx context.Context, q *wire.Request) error {
	if !q.Op.Lookup() || q.Has(wire.NoLoad) {
		return nil
	}
	keys := q.Keys
	if q.Op != wire.OpMGet {
		keys = [][]byte{q.Key}
	}
	for _, key := range keys {
		if namespaces.Within(ctx, q.Namespace, key) {
			return fmt.Errorf("%w: the origin of %s asks the sidecar for the key %q that it loads, and would wait for "+
				"itself: let it return the value", cachesidecar.ErrBadRequest, q.Namespace, key)
		}
	}
	return nil
}

// unshare gives the caller its own values: those of the slow way may be those of a copy,
// or of other readers that have waited for the same load.
func unshare(r *wire.Reply) {
	r.Value = bytes.Clone(r.Value)
	for i := range r.Items {
		r.Items[i].Value = bytes.Clone(r.Items[i].Value)
	}
}
