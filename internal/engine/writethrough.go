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
	t := ns.WriteThrough
	ctx, cancel := context.WithTimeout(ctx, deadline-e.Clock.Read().Boot)
	defer cancel()
	defer context.AfterFunc(t.Asking, cancel)()
	own := q.Clone() // the write may outlive the request
	own.UntilNS = min(own.UntilNS, uint64(deadline))
	key := ns.Key(bytes.Clone(k))
	leave, err := t.Enter(ctx, key.Hash)
	if err != nil {
		t.Shed.Add(1)
		return loadError(ns, err), true
	}
	result := make(chan wire.Reply, 2) // the first one is the answer
	go func() {                        // ends with the write, in the request's time, and its settling; or with close
		ctx, cancel := context.WithTimeout(t.Asking, min(t.Timeout(), deadline-e.Clock.Read().Boot))
		r, settled := e.writeThroughNow(ctx, ns, &own, key)
		cancel()
		if !settled {
			t.Unsettles()
		}
		leave()
		if settled || r.Status.IsError() { // else the answer depends on the settling
			result <- r
		}
		if !settled {
			late := time.AfterFunc(settleTime, func() { result <- ownershipEnded() })
			v, done := e.settle(ns, &own, key.Bytes)
			switch r.Version = v; {
			case r.Status.IsError():
			case done:
				t.Stored.Add(1)
			default:
				t.Unknown.Add(1)
				r = ownershipEnded()
			}
			if late.Stop() {
				result <- r
			}
		}
	}()
	select {
	case r = <-result:
		return r, r.Status != wire.Moved
	case <-ctx.Done():
		return failed(wire.Timeout,
			"the origin of namespace %s did not answer in the request's time; the outcome is unknown: "+
				"read the key, or write it again", ns.Name), true
	}
}

// writeThroughNow is writeThrough in the key's turn. settled is false if another host may own
// the key and may have kept what it loaded before the origin's write was done. A reply
// that is no error is then true only once that is settled.
func (e *Engine) writeThroughNow(
	ctx context.Context, ns *namespaces.Namespace, q *wire.Request, key kv.Key,
) (r wire.Reply, settled bool) {
	t, p := ns.WriteThrough, key.Hash.Partition()
	if n := t.Unsettled.Load(); n >= namespaces.MaxUnsettled {
		t.Shed.Add(1)
		return failed(wire.Busy,
			"namespace %s: the end of %d writes could not be told yet to the hosts that own their keys now, "+
				"so none begins: try again", ns.Name, n), true
	}
	now := e.Clock.Read()
	e.Node.CheckPause(now.Boot)
	epoch := e.Node.OwnershipEpoch(p)
	before := e.Local.invalidate(ns, q, key, now)
	if epoch == 0 || !deleted(&before) {
		return Moved(), true // the origin has not been asked
	}
	if e.Deadlines.over(executeBefore(q)) && !failpoint.Out(failpoint.OverdueOrigin) {
		return e.Deadlines.tooLate(q), true
	}
	err := t.Write(ctx, q, key.Bytes)
	now = e.Clock.Read()
	e.Node.CheckPause(now.Boot)
	if still := e.Node.OwnershipEpoch(p) == epoch; err == nil && still {
		if r, settled = e.Local.wrote(ns, q, key, epoch, before.Status, now); settled {
			t.Stored.Add(1)
		}
		return r, settled
	}
	again := e.Local.invalidate(ns, q, key, now)
	settled = deleted(&again)
	switch {
	case err == nil:
		if settled {
			t.Stored.Add(1)
		}
		if r.Version = again.Version; q.Op == wire.OpDelete {
			r.Status = before.Status
		}
		return r, settled
	case errors.Is(err, loader.ErrNotWritten):
		t.Refused.Add(1)
		if errors.Is(err, loader.ErrBadKey) {
			return loadError(ns, err), true
		}
		return failed(wire.Origin, "%v", err), true
	}
	t.Unknown.Add(1)
	return failed(wire.Timeout, "%v; it may have written it, the outcome is unknown: read the key, or write it again",
		err), settled
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

// settleTime is how long an app waits for the settling of its write.
const settleTime = time.Second

// settle deletes a key at its owner, whichever host that is. It returns once the deletion
// is done, with its version, or when the namespace closes. It counts as one of the writes
// under way.
func (e *Engine) settle(ns *namespaces.Namespace, q *wire.Request, key []byte) (version uint64, done bool) {
	t := ns.WriteThrough
	defer t.Pending.Done()
	if !failpoint.Out(failpoint.LateWrite) {
		var err error
		if version, err = e.deleteSurely(t.Context, &wire.Request{
			Op: wire.OpDelete, Namespace: []byte(ns.Name), Keys: [][]byte{key}, ReplicaLagMS: q.ReplicaLagMS,
			Options: wire.LateWrite,
		}); err != nil {
			return 0, false
		}
	}
	t.Unsettled.Add(-1)
	return version, true
}
