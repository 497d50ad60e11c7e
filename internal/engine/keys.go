package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Every request is first tried on this host (Execute, Value). What this host owns, and
// copies of what other hosts own, are answered in place. If that is not possible, the
// answer is MOVED, and the request goes the slow way, within its deadline. A GET of
// another host's key and a LEASE that waits need no goroutine (see Waits); every
// other request has a goroutine of its own:
//
//	owned here, entries on their way here  → ask for the entry first, see fetchEntry
//	owned here, missing, has an origin     → load it, once for all readers
//	owned here, missing, a LEASE           → a token, or wait for the FILL
//	owned here, write-through              → the origin first
//	assigned to this host, not owned yet   → wait until it is owned
//	another host's                         → ask the owner, once for all readers
//	without an assigned owner              → wait for a ring
//
// A request of another sidecar goes no further than this host. If it cannot be answered
// here, the answer is MOVED (see servePeer), so that no request goes in circles. A write that
// has waited here for the ownership is answered MOVED too, and is asked for again: only the
// host that it comes from knows whether its client still waits.

// keys answers requests of one key, wherever the key is.
type keys struct {
	*base
	forwarder *Forwarder
	loads     *Loads
	tokens    *Tokens
	reads     *Reads
	writes    *Writes
	metaGets  *MetaGets
	through   *writeThrough
}

// execute answers a request of one key from what this host has, without waiting, or with
// MOVED.
func (c *keys) execute(q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply) {
	switch q.Op {
	case wire.OpGet, wire.OpLease:
		value, _, _ := c.reads.Value(nil, pins, q, q.Key, segment.NoLimit, now, fetchedEpoch, r)
		if r.Status == wire.OK {
			r.Value = value
		}
	case wire.OpSet:
		c.writes.set(q, pins, now, fetchedEpoch, r)
	case wire.OpFill:
		c.writes.onKey(q, pins, now, fetchedEpoch, r, c.tokens.fill)
	case wire.OpTouch:
		c.writes.onKey(q, pins, now, fetchedEpoch, r, c.writes.touch)
	case wire.OpIncr:
		c.writes.onKey(q, pins, now, fetchedEpoch, r, c.writes.incr)
	case wire.OpMetaGet:
		c.metaGets.answer(q, pins, now, fetchedEpoch, r)
	default:
		*r = failed(wire.Unsupported, "%s is not served by this version", q.Op)
	}
}

func (c *keys) servePeer(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	partition := c.Names.Hash(q.Namespace, k).Partition()
	limit := c.waitLimit(q, deadline)
	for waited := false; ; waited = true {
		changed := c.Node.Changed()
		now := c.Clock.Read()
		c.Node.CheckPause(now.Boot)
		if c.Node.OwnershipEpoch(partition) != 0 {
			if waited && q.UntilNS != 0 && !failpoint.Out(failpoint.ConnEnded) {
				return Moved()
			}
			if r, done := c.local(ctx, q, k, pins, now, deadline); done {
				return r
			}
		}
		if !c.Node.View().Own(partition) {
			return Moved()
		}
		pins.Release()
		if !c.awaitOwner(ctx, changed, limit, 0) {
			return failed(wire.Unavailable, "the key's partition is being taken over: try again")
		}
	}
}

// serve answers a request of one key.
func (c *keys) serve(ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration) wire.Reply {
	limit := c.waitLimit(q, deadline)
	for again := askAgain; ; again = min(2*again, mostAgain) {
		changed := c.Node.Changed() // taken before the state that it tells of is read
		now := c.Clock.Read()
		c.Node.CheckPause(now.Boot)
		ns, err := pins.Write(q.Namespace)
		if bad := CheckKey(q.Key); bad != nil {
			err = bad
		} else if err != nil && q.Op == wire.OpGet && kv.ValidNamespace(string(q.Namespace)) {
			return c.forwarder.readSlotless(ctx, q, deadline)
		}
		if err != nil {
			return wire.ErrorReply(err)
		}
		key := ns.Key(q.Key)
		partition := key.Hash.Partition()
		if c.Node.OwnershipEpoch(partition) != 0 {
			if r, done := c.local(ctx, q, q.Key, pins, now, deadline); done {
				return r
			}
		}
		if owner := c.Node.View().Owner(partition); owner != nil && owner.Process != c.Node.Self() {
			pins.Release()
			r := c.forwarder.forward(ctx, owner, q, key, deadline)
			if r.Status != wire.Moved {
				return r
			}
			if c.Node.View().Owner(partition) != owner {
				continue // the view has changed meanwhile
			}
		}
		pins.Release()
		if !c.awaitOwner(ctx, changed, limit, again) {
			return c.replyNoOwner(q)
		}
	}
}

// local answers from what this host owns. It first fetches an entry that is on its
// way here, and loads a missing value. It returns false if the request must go elsewhere.
func (c *keys) local(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, now kv.Moment, deadline time.Duration,
) (wire.Reply, bool) {
	if ns := c.through.of(q); ns != nil {
		pins.Release()
		return c.through.write(ctx, ns, q, k, deadline)
	}
	r := c.inPlace(ctx, q, k, pins, now, 0)
	if r.Status != wire.Moved {
		return r, true
	}
	if ns := c.through.of(q); ns != nil { // since a reload just now
		pins.Release()
		return c.through.write(ctx, ns, q, k, deadline)
	}
	ns, key, err := c.named(q, k, pins)
	if err != nil {
		return wire.ErrorReply(err), true
	}
	epoch := c.Node.OwnershipEpoch(key.Hash.Partition())
	waits := (ReadOp(q.Op) || q.Op == wire.OpMetaGet) && ns.Waits(q)
	if epoch == 0 {
		return r, false // not owned any more
	}
	pins.Release()
	asked, err := c.fetchEntry(ctx, q, key, deadline-now.Boot)
	if err != nil {
		return wire.ErrorReply(err), true
	}
	if asked || !waits { // else all entries on their way have come
		r = c.inPlace(ctx, q, k, pins, c.Clock.Read(), epoch)
		if r.Status != wire.Miss || r.Why == wire.Absent || !waits {
			return r, r.Status != wire.Moved
		}
	}
	for {
		pins.Release() // a namespace that may lose its slot has tokens only, and they name the key
		if ns.Origin == nil {
			r = c.tokens.claim(ctx, ns, key, q, deadline)
		} else {
			r = c.loads.Get(ctx, ns, key, q, deadline)
		}
		if r.Status != wire.Moved {
			return c.afterLoad(q, pins, epoch, r)
		}
		// Another request has stored the value.
		now := c.Clock.Read()
		r = c.inPlace(ctx, q, k, pins, now, epoch)
		if r.Status != wire.Miss || r.Why == wire.Absent || now.Boot >= deadline {
			return r, r.Status != wire.Moved
		}
	}
}

// copied returns how many bytes of a value execute copies for a request of one key.
func (c *keys) copied(q *wire.Request, k []byte, pins *namespaces.Pins) int {
	n := 0
	switch {
	case ReadOp(q.Op), q.Op == wire.OpMetaGet && !q.Has(wire.NoValue):
	case q.Op == wire.OpFill, q.Op == wire.OpSet && q.Mode == wire.ModeCAS: // for readers that wait
		return len(q.Value)
	case q.Op == wire.OpSet && q.Mode.IsConcat():
		n = len(q.Value)
	default:
		return 0
	}
	if ns := pins.Read(q.Namespace); ns != nil {
		n += c.reads.Store.Length(ns.Key(k))
	}
	if q.Op == wire.OpSet && n > c.writes.Config.MaxValue {
		return 0 // it is refused
	}
	return n
}

// named returns the namespace and the key of a request. A deletion takes no slot for a
// namespace that has none here: then ns is nil.
func (c *keys) named(
	q *wire.Request, k []byte, pins *namespaces.Pins,
) (ns *namespaces.Namespace, key kv.Key, err *wire.Error) {
	if q.Op == wire.OpDelete {
		ns, key = c.writes.keyOf(q, k, pins)
		return ns, key, nil
	}
	if ns, err = pins.Write(q.Namespace); err != nil {
		return nil, key, err
	}
	return ns, ns.Key(k), nil
}

// afterLoad returns the answer after a load. METAGET looks at what the load has left.
func (c *keys) afterLoad(
	q *wire.Request, pins *namespaces.Pins, epoch uint32, r wire.Reply,
) (wire.Reply, bool) {
	if q.Op != wire.OpMetaGet {
		return r, true
	}
	r = c.metaGets.loaded(q, pins, epoch, &r)
	return r, r.Status != wire.Moved
}

// inPlace is Execute for one key, also for the deletion of one key. What is copied is charged, and
// waits for its turn, before it is copied: many requests may want one long value at once.
func (c *keys) inPlace(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32,
) (r wire.Reply) {
	if n := c.copied(q, k, pins); n > 0 {
		held := quota.HeldOf(ctx)
		if err := held.Take(n); err != nil {
			return failed(wire.Busy, "%v", err)
		}
		defer held.Copy(n)()
		now = c.Clock.Read() // it may have waited
	}
	if q.Op == wire.OpDelete {
		return c.writes.Delete(q, k, pins, now, fetchedEpoch)
	}
	c.execute(q, pins, now, fetchedEpoch, &r)
	return r
}
