package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Every request is first tried on this host (Execute, Value). What this host owns, and
// copies of what other hosts own, are answered in place. If that is not possible, the
// answer is MOVED, and the request goes the slow way, within its deadline. A GET of
// another host's key and a LEASE that waits need no goroutine (see Wait); every
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

func (e *Engine) servePeer(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	partition := e.Namespaces.Hash(q.Namespace, k).Partition()
	limit := e.waitLimit(q, deadline)
	for waited := false; ; waited = true {
		changed := e.Node.Changed()
		now := e.Clock.Read()
		e.Node.CheckPause(now.Boot)
		if e.Node.OwnershipEpoch(partition) != 0 {
			if waited && q.UntilNS != 0 && !failpoint.Out(failpoint.ConnEnded) {
				return Moved()
			}
			if r, done := e.local(ctx, q, k, pins, now, deadline); done {
				return r
			}
		}
		if !e.Node.View().Own(partition) {
			return Moved()
		}
		pins.Release()
		if !e.awaitOwner(ctx, changed, limit, 0) {
			return failed(wire.Unavailable, "the key's partition is being taken over: try again")
		}
	}
}

// serve answers a request of one key.
func (e *Engine) serve(ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration) wire.Reply {
	limit := e.waitLimit(q, deadline)
	for again := minRetryPause; ; again = min(2*again, maxRetryPause) {
		changed := e.Node.Changed() // taken before the state that it tells of is read
		now := e.Clock.Read()
		e.Node.CheckPause(now.Boot)
		ns, key, err := e.named(q, q.Key, pins)
		if err != nil {
			return wire.ErrorReply(err)
		}
		partition := key.Hash.Partition()
		if e.Node.OwnershipEpoch(partition) != 0 {
			if r, done := e.local(ctx, q, q.Key, pins, now, deadline); done {
				return r
			}
		}
		if owner := e.Node.View().AssignedOwner(partition); owner != nil && owner.Process != e.Node.Self() {
			pins.Release()
			r := e.Remote.forward(ctx, owner, q, ns, key, deadline)
			if r.Status != wire.Moved {
				return r
			}
			if e.Node.View().AssignedOwner(partition) != owner {
				continue // the view has changed meanwhile
			}
		}
		pins.Release()
		if !e.awaitOwner(ctx, changed, limit, again) {
			return e.replyNoOwner(q)
		}
	}
}

// local answers from what this host owns. It first fetches an entry that is on its
// way here, and loads a missing value. It returns false if the request must go elsewhere.
func (e *Engine) local(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, now kv.Moment, deadline time.Duration,
) (wire.Reply, bool) {
	if ns := e.writeThroughOf(q); ns != nil {
		pins.Release()
		return e.writeThrough(ctx, ns, q, k, deadline)
	}
	r := e.inPlace(ctx, q, k, pins, now, 0)
	if r.Status != wire.Moved {
		return r, true
	}
	if ns := e.writeThroughOf(q); ns != nil { // since a reload just now
		pins.Release()
		return e.writeThrough(ctx, ns, q, k, deadline)
	}
	ns, key, err := e.named(q, k, pins)
	if err != nil {
		return wire.ErrorReply(err), true
	}
	epoch := e.Node.OwnershipEpoch(key.Hash.Partition())
	waits := ns != nil && q.Op.Reads() && ns.Waits(q)
	if epoch == 0 {
		return r, false // not owned any more
	}
	pins.Release()
	asked, err := e.fetchEntry(ctx, q, key, e.patience(ns, q, deadline)-now.Boot)
	if err != nil {
		return wire.ErrorReply(err), true
	}
	if asked || !waits { // else all entries on their way have come
		r = e.inPlace(ctx, q, k, pins, e.Clock.Read(), epoch)
		if r.Status != wire.Miss || r.Why == wire.Absent || !waits {
			return r, r.Status != wire.Moved
		}
	}
	for {
		pins.Release() // a namespace that may lose its slot has tokens only, and they name the key
		if ns.Origin == nil {
			r = e.Tokens.claim(ctx, ns, key, q, deadline)
		} else {
			r = e.Loads.Get(ctx, ns, key, q, deadline)
		}
		if r.Status != wire.Moved {
			return e.afterLoad(q, pins, epoch, r)
		}
		// Another request has stored the value.
		now := e.Clock.Read()
		r = e.inPlace(ctx, q, k, pins, now, epoch)
		if r.Status != wire.Miss || r.Why == wire.Absent || now.Boot >= deadline {
			if ns.Origin != nil && r.Status == wire.Miss && r.Why != wire.Absent {
				r = failed(wire.Timeout, "no load of the key has lasted until the end of the request's time: ask again")
			}
			return r, r.Status != wire.Moved
		}
	}
}

// Copied returns how many bytes of a value Execute copies for a request of one key.
func (e *Engine) Copied(q *wire.Request, pins *namespaces.Pins) int {
	n := 0
	switch {
	case q.Op.Reads() && !q.Has(wire.NoValue):
	case q.Op == wire.OpFill, q.Op == wire.OpSet && q.Mode == wire.ModeCAS: // for readers that wait
		return len(q.Value)
	case q.Op == wire.OpSet && q.Mode.IsConcat():
		n = len(q.Value)
	default:
		return 0
	}
	if ns := pins.Read(q.Namespace); ns != nil {
		n += e.Store.Length(ns.Key(q.Key))
	}
	if q.Op == wire.OpSet && n > e.Config.MaxValue {
		return 0 // it is refused
	}
	return n
}

// named returns the namespace and the key of a request. A namespace that has no slot here gets none for a
// deletion, and a GET can do without: then ns is nil.
func (e *Engine) named(
	q *wire.Request, k []byte, pins *namespaces.Pins,
) (ns *namespaces.Namespace, key kv.Key, err *wire.Error) {
	if err = CheckKey(k); err != nil {
		return nil, key, err
	}
	if q.Op != wire.OpDelete {
		if ns, err = pins.Write(q.Namespace); err == nil {
			return ns, ns.Key(k), nil
		}
		if q.Op != wire.OpGet || !kv.ValidNamespace(string(q.Namespace)) {
			return nil, key, err
		}
	}
	ns, key = e.Local.keyOf(q, k, pins)
	return ns, key, nil
}

// afterLoad returns the answer after a load. METAGET looks at what the load has left.
func (e *Engine) afterLoad(
	q *wire.Request, pins *namespaces.Pins, epoch uint32, r wire.Reply,
) (wire.Reply, bool) {
	if q.Op.Lookup() {
		return r, true
	}
	r = e.Local.metaGetLoaded(q, pins, epoch, &r)
	return r, r.Status != wire.Moved
}

// inPlace is Execute for one key, also for the deletion of one key. What is copied is charged, and
// waits for its turn, before it is copied: many requests may want one long value at once.
func (e *Engine) inPlace(
	ctx context.Context, q *wire.Request, k []byte, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32,
) (r wire.Reply) {
	if n := e.Copied(q, pins); n > 0 {
		held := quota.HeldOf(ctx)
		if err := held.Take(n); err != nil {
			return failed(wire.Busy, "%v", err)
		}
		defer held.Copy(n)()
		now = e.Clock.Read() // it may have waited
	}
	if q.Op == wire.OpDelete {
		return e.Local.Delete(q, k, pins, now, fetchedEpoch)
	}
	e.ExecuteTo(q, pins, now, fetchedEpoch, &r)
	return r
}

// readKey reads a key of this host as if another host had asked.
func (e *Engine) readKey(ctx context.Context, ns *namespaces.Namespace, key []byte, deadline time.Duration) wire.Reply {
	q := &wire.Request{Op: wire.OpGet, Namespace: []byte(ns.Name), Key: key}
	b := namespaces.Pins{Table: e.Namespaces}
	defer b.Release()
	return e.servePeer(ctx, q, key, &b, deadline)
}
