package engine

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Writes that go to the origin before the cache.

// writeThroughOf returns the namespace of a request that writes through, or nil. TOUCH changes
// nothing at the origin, and a removal from the cache alone does not either. A soft deletion
// only makes the value stale. A deletion that settles a write follows a write that has been
// at the origin already.
func (e *Engine) writeThroughOf(q *wire.Request) *namespaces.Namespace {
	switch {
	case q.Op == wire.OpDelete && q.Has(wire.Soft|wire.LateWrite|wire.CacheOnly):
		return nil
	case q.Op != wire.OpSet && q.Op != wire.OpDelete && q.Op != wire.OpIncr && q.Op != wire.OpFill:
		return nil
	}
	if ns := e.Namespaces.Lookup(q.Namespace); ns != nil && ns.WriteThrough != nil {
		return ns
	}
	return nil
}

// checkWriteThrough returns an error if a request cannot be written through.
func (c *Local) checkWriteThrough(ns *namespaces.Namespace, q *wire.Request, key []byte) *wire.Error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if q.Op == wire.OpIncr || q.Op == wire.OpFill || q.Compare != 0 || q.Op == wire.OpSet && q.Mode != wire.ModeSet {
		return wire.Errorf(wire.BadRequest,
			"namespace %s writes through to its origin, which knows no conditions, counters and tokens: "+
				"SET without a condition, or DELETE", ns.Name)
	}
	if n := len(q.Value); n > c.Config.MaxValue {
		return tooLarge(n, c.Config.MaxValue)
	}
	return checkAllowed(ns, key)
}

// writeThrough writes one key, if this host owns it. done is false if it does not.
func (e *Engine) writeThrough(
	ctx context.Context, ns *namespaces.Namespace, q *wire.Request, k []byte, deadline time.Duration,
) (r wire.Reply, done bool) {
	if err := e.Local.checkWriteThrough(ns, q, k); err != nil {
		return wire.ErrorReply(err), true
	}
	ctx, cancel := context.WithTimeout(ctx, deadline-e.Clock.Read().Boot)
	defer cancel()
	own := q.Clone() // the write may outlive the request
	own.UntilNS = min(own.UntilNS, uint64(deadline))
	w := &namespaces.Write{Key: ns.Key(bytes.Clone(k)), Lost: ownershipEnded}
	w.Now = func(ctx context.Context) (wire.Reply, namespaces.WriteEnd, bool) {
		ctx, cancel := context.WithTimeout(ctx, deadline-e.Clock.Read().Boot)
		defer cancel()
		return e.writeThroughNow(ctx, ns, &own, w.Key)
	}
	w.Settle = func(ctx context.Context) (uint64, error) {
		if failpoint.Out(failpoint.LateWrite) {
			return 0, nil
		}
		return e.deleteSurely(ctx, &wire.Request{
			Op: wire.OpDelete, Namespace: []byte(ns.Name), Keys: [][]byte{w.Key.Bytes}, ReplicaLagMS: own.ReplicaLagMS,
			Options: wire.LateWrite,
		})
	}
	r, err := ns.WriteThrough.Do(ctx, w)
	switch {
	case errors.Is(err, namespaces.ErrUnderWay):
		return failed(wire.Timeout,
			"the origin of namespace %s did not answer in the request's time; the outcome is unknown: "+
				"read the key, or write it again", ns.Name), true
	case err != nil:
		return loadError(ns, err), true
	}
	return r, r.Status != wire.Moved
}

// writeThroughNow is writeThrough in the key's turn: see namespaces.Write.
func (e *Engine) writeThroughNow(
	ctx context.Context, ns *namespaces.Namespace, q *wire.Request, key kv.Key,
) (r wire.Reply, end namespaces.WriteEnd, settled bool) {
	t, p := ns.WriteThrough, key.Hash.Partition()
	if n := t.Unsettled(); n >= namespaces.MaxUnsettled {
		return failed(wire.Busy,
			"namespace %s: the end of %d writes could not be told yet to the hosts that own their keys now, "+
				"so none begins: try again", ns.Name, n), namespaces.WriteShed, true
	}
	now := e.Clock.Read()
	e.Node.CheckPause(now.Boot)
	epoch := e.Node.OwnershipEpoch(p)
	before := e.Local.invalidate(ns, q, key, now)
	if epoch == 0 || !deleted(&before) {
		return Moved(), namespaces.WriteNotAsked, true
	}
	if e.Deadlines.over(executeBefore(q)) && !failpoint.Out(failpoint.OverdueOrigin) {
		return e.Deadlines.tooLate(q), namespaces.WriteNotAsked, true
	}
	err := t.AskOrigin(ctx, q, key.Bytes)
	now = e.Clock.Read()
	e.Node.CheckPause(now.Boot)
	if still := e.Node.OwnershipEpoch(p) == epoch; err == nil && still {
		r, settled = e.Local.wrote(ns, q, key, epoch, before.Status, now)
		return r, namespaces.WriteStored, settled
	}
	again := e.Local.invalidate(ns, q, key, now)
	settled = deleted(&again)
	switch {
	case err == nil:
		if r.Version = again.Version; q.Op == wire.OpDelete {
			r.Status = before.Status
		}
		return r, namespaces.WriteStored, settled
	case errors.Is(err, loader.ErrNotWritten) && errors.Is(err, loader.ErrBadKey):
		return loadError(ns, err), namespaces.WriteRefused, true
	case errors.Is(err, loader.ErrNotWritten):
		return failed(wire.Origin, "%v", err), namespaces.WriteRefused, true
	}
	return failed(wire.Timeout, "%v; it may have written it, the outcome is unknown: read the key, or write it again",
		err), namespaces.WriteUnknown, settled
}

// wrote repeats here what the origin has done. had is the status of the deletion
// before. still is false if the ownership has ended.
func (c *Local) wrote(
	ns *namespaces.Namespace, q *wire.Request, key kv.Key, epoch uint32, had wire.Status, now kv.Moment,
) (r wire.Reply, still bool) {
	if q.Op == wire.OpSet {
		one := *q
		one.Key, one.UntilNS = key.Bytes, 0 // the origin has it
		// If there is no room, or if the origin may have done an earlier write after this
		// one, the next read of the key loads it.
		if c.Put(ns, key, &one, now, &r); r.Status != wire.OK || ns.WriteThrough.IsSuperseded(key.Hash) {
			r = c.invalidate(ns, q, key, now)
			r.Status = wire.OK
		}
	} else {
		r = c.invalidate(ns, q, key, now)
		r.Status = had
	}
	return r, c.stillOwner(key.Hash.Partition(), epoch)
}

// invalidate deletes a key here, with the namespace's load barrier. The origin decides what
// the key has: no entry that is on its way here is asked for.
func (c *Local) invalidate(ns *namespaces.Namespace, q *wire.Request, key kv.Key, now kv.Moment) wire.Reply {
	b := namespaces.Pins{Table: c.Namespaces}
	defer b.Release()
	own := &wire.Request{Op: wire.OpDelete, Namespace: []byte(ns.Name), ReplicaLagMS: q.ReplicaLagMS}
	return c.Delete(own, key.Bytes, &b, now, c.Node.OwnershipEpoch(key.Hash.Partition()))
}
