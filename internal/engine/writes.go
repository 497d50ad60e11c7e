package engine

import (
	"slices"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Writes of keys that this host owns.

// A reply is filled in place where many pass: it is too large to be handed from function to
// function.

// onKey answers a write of one key, f, inside its namespace.
func (c *Local) onKey(
	q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply,
	f func(*namespaces.Namespace, kv.Key, *wire.Request, kv.Moment) wire.Reply,
) {
	ns, k, epoch := c.beginWrite(q, pins, now, fetchedEpoch, r)
	if epoch == 0 {
		return
	}
	*r = f(ns, k, q, now)
	c.endWrite(r, k, epoch, now)
}

// beginWrite returns what a write of one key needs, and the epoch of the ownership in which it
// begins; zero: r says why the write is not executed here and now.
func (c *Local) beginWrite(
	q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply,
) (ns *namespaces.Namespace, k kv.Key, epoch uint32) {
	if err := CheckKey(q.Key); err != nil {
		*r = wire.ErrorReply(err)
		return nil, kv.Key{}, 0
	}
	ns, err := pins.Write(q.Namespace)
	if err != nil {
		*r = wire.ErrorReply(err)
		return nil, kv.Key{}, 0
	}
	if err := checkAllowed(ns, q.Key); err != nil && !q.Has(wire.Abandon) {
		*r = wire.ErrorReply(err)
		return nil, kv.Key{}, 0
	}
	k = ns.Key(q.Key)
	epoch = c.epochFor(q, k, fetchedEpoch, now)
	if epoch == 0 || ns.WriteThrough != nil && q.Op != wire.OpTouch {
		*r = Moved()
		return nil, kv.Key{}, 0
	}
	failpoint.At(failpoint.WriteDue)
	return ns, k, epoch
}

// endWrite completes the reply of a write that begin has allowed.
func (c *Local) endWrite(r *wire.Reply, k kv.Key, epoch uint32, now kv.Moment) {
	failpoint.At(failpoint.WriteDone)
	changeVersion := kv.Version(0)
	if r.Status == wire.OK {
		changeVersion = kv.Version(r.Changed())
	}
	c.confirmOwnership(r, k, epoch, changeVersion, now)
}

// confirmOwnership completes the reply of a write that this host has executed as the owner, with
// changeVersion if it has changed anything. An ownership may end in the middle of a write:
// the next owner then gets the change, or executes a write that has changed nothing here.
// A key that the answer takes for absent stays absent.
func (c *Local) confirmOwnership(
	r *wire.Reply, k kv.Key, epoch uint32, changeVersion kv.Version, now kv.Moment,
) {
	partition := k.Hash.Partition()
	switch {
	case changeVersion == 0 && r.Status == wire.Miss && !c.Store.Missed(k, now):
		*r = Moved()
	case c.stillOwner(partition, epoch):
	case changeVersion == 0:
		*r = Moved()
	case c.Node.ReleasedWith(partition, epoch, changeVersion):
	default:
		*r = ownershipEnded()
	}
}

var modes = [...]segment.Mode{
	wire.ModeSet:     segment.Set,
	wire.ModeAdd:     segment.Add,
	wire.ModeReplace: segment.Replace,
	wire.ModeCAS:     segment.CompareAndSwap,
	wire.ModeAppend:  segment.Append,
	wire.ModePrepend: segment.Prepend,
}

// set answers SET.
func (c *Local) set(q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply) {
	ns, k, epoch := c.beginWrite(q, pins, now, fetchedEpoch, r)
	if epoch == 0 {
		return
	}
	switch {
	case q.Mode == wire.ModeCAS:
		c.compareAndSwap(ns, k, q, now, r)
	case q.Mode.IsConcat():
		c.concat(ns, k, q, now, r)
	default:
		c.Put(ns, k, q, now, r)
	}
	c.endWrite(r, k, epoch, now)
}

// compareAndSwap stores what a SET brings if the key has the version that it names, or if it
// names the claim that is out for the key.
func (c *Local) compareAndSwap(ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment, r *wire.Reply) {
	if filled, ok := c.tokens.fillClaim(ns, k, q, now); ok {
		*r = filled
		return
	}
	if c.Put(ns, k, q, now, r); r.Status != wire.Miss || !q.Has(wire.StaleOK) {
		return
	}
	_, seen, res := c.Store.Look(nil, k, segment.Query{Limit: -1, Unread: true}, now)
	switch {
	case res == segment.Found && seen.Kind == kv.Stale:
		*r = wire.Reply{Status: wire.Stale, Version: uint64(seen.Version)}
	case c.tokens.LeaseTokens.IsIssued(k): // another caller loads it
		*r = wire.Reply{Status: wire.Exists}
	}
}

// concat puts what a SET brings behind or before the present value.
func (c *Local) concat(ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment, r *wire.Reply) {
	v, res := c.Store.Concat(k, c.writeOf(ns, q, now), q.Has(wire.Create), now)
	*r = c.written(ns, q, v, res)
}

// Put stores what a SET brings.
func (c *Local) Put(ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment, r *wire.Reply) {
	v, res := c.Store.Put(k, c.writeOf(ns, q, now), now)
	if res == segment.Stored {
		*r = wire.Reply{} // in place: a literal with fields would be copied
		r.Version = uint64(v)
		return
	}
	*r = c.written(ns, q, v, res)
}

// writeOf returns what a SET asks the store for.
func (c *Local) writeOf(ns *namespaces.Namespace, q *wire.Request, now kv.Moment) segment.Write {
	return segment.Write{
		Value:         q.Value,
		Facts:         kv.Facts{Attributes: q.Attributes, Deadline: ns.Deadline(q.TTLMS, now)},
		Mode:          modes[q.Mode],
		Compare:       kv.Version(q.Compare),
		ExecuteBefore: executeBefore(q),
	}
}

// written turns the store's result of a write into the reply.
func (c *Local) written(ns *namespaces.Namespace, q *wire.Request, v kv.Version, res segment.Result) wire.Reply {
	switch res {
	case segment.Stored:
		return wire.Reply{Version: uint64(v)}
	case segment.Exists:
		return wire.Reply{Status: wire.Exists, Version: uint64(v)}
	case segment.Absent:
		return wire.Reply{Status: wire.Miss}
	case segment.NotNumber:
		return notStored("the value is no decimal 64-bit number: " +
			"SET one first, or DELETE the key and give an initial value")
	case segment.Overflow:
		return notStored("the sum does not fit into 64 bits")
	case segment.Contended:
		return failed(wire.Busy, "other writes of the key came in between, again and again: try again")
	case segment.Overdue:
		return c.Deadlines.tooLate(q)
	case segment.NotOwner:
		return Moved()
	case segment.TooLarge:
		if len(q.Value) > c.Config.MaxValue {
			return wire.ErrorReply(tooLarge(len(q.Value), c.Config.MaxValue))
		}
		if q.Mode.IsConcat() {
			return failed(wire.TooLarge, "with %d bytes more the value would exceed max_value, which is %d, or the "+
				"quota of namespace %s: begin another value, or raise the limit",
				len(q.Value), c.Config.MaxValue, ns.Name)
		}
		return failed(wire.TooLarge, "the entry does not fit into namespace %s's quota of %s: raise the quota",
			ns.Name, humanize.IBytes(uint64(c.Store.NamespaceStats(ns.ID).Quota)))
	}
	return failed(wire.Busy, "no memory could be freed, since all of it is being read: try again")
}

func (c *Local) touch(ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment) wire.Reply {
	v, event, res := c.Store.Touch(k, ns.Deadline(q.TTLMS, now), executeBefore(q), now)
	r := c.written(ns, q, v, res)
	r.Event = uint64(event)
	return r
}

func (c *Local) incr(ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment) wire.Reply {
	sum, v, ends, res := c.Store.Incr(k, segment.Increment{
		Delta: q.Delta, Create: q.Create, Initial: q.Initial, Deadline: ns.Deadline(q.TTLMS, now),
		ExecuteBefore: executeBefore(q),
		Unsigned:      q.Has(wire.Unsigned), Decrement: q.Has(wire.Down), Compare: kv.Version(q.Compare),
		ResetDeadline: q.Has(wire.Retouch) && q.TTLMS != wire.TTLDefault,
	}, now)
	r := c.written(ns, q, v, res)
	r.Number, r.Unsigned = sum, q.Has(wire.Unsigned) && sum < 0
	if res == segment.Stored {
		r.TTLMS = ends.TTLms(now.Boot)
	}
	return r
}

// deleteKeys deletes all keys of a request here, or none: then the answer is MOVED. Their
// number is bounded. The items come into the array of those that r has had.
func (c *Local) deleteKeys(q *wire.Request, pins *namespaces.Pins, now kv.Moment, r *wire.Reply) {
	items := r.Items[:0]
	*r = Moved()
	for _, key := range q.Keys {
		if _, k := c.keyOf(q, key, pins); c.epochFor(q, k, 0, now) == 0 {
			return
		}
	}
	items = slices.Grow(items, len(q.Keys))[:len(q.Keys)]
	for i, key := range q.Keys {
		switch items[i] = c.Delete(q, key, pins, now, 0); {
		case items[i].Status != wire.Moved:
		case i == 0:
			return
		case q.App: // it cannot ask the next owner, as another host does
			items[i] = failed(wire.Unavailable, "the key's partition went to another host in this moment: try again")
		}
	}
	*r = wire.Reply{Items: items}
}

// keyOf returns the namespace and a key of a deletion. A namespace without a slot has no such
// key, and gets no slot: then ns is nil.
func (c *Local) keyOf(q *wire.Request, key []byte, pins *namespaces.Pins) (ns *namespaces.Namespace, k kv.Key) {
	if ns = pins.Read(q.Namespace); ns != nil {
		return ns, ns.Key(key)
	}
	return nil, kv.Key{Hash: c.Namespaces.Hash(q.Namespace, key), Bytes: key}
}

// Delete deletes one key of a request, or with option Soft makes its value stale.
func (c *Local) Delete(
	q *wire.Request, key []byte, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32,
) wire.Reply {
	if err := CheckKey(key); err != nil {
		return wire.ErrorReply(err)
	}
	ns, k := c.keyOf(q, key, pins)
	if ns == nil && !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	epoch := c.epochFor(q, k, fetchedEpoch, now)
	if epoch == 0 {
		return Moved()
	}
	if ns == nil {
		// Other hosts may have copies, and an entry on its way here must not come in, or
		// must not stay if it has just come.
		var v kv.Version
		if q.Compare == 0 && !failpoint.Out(failpoint.NoSlot) {
			v = c.Store.Invalidate(k.Hash, now)
		}
		r := wire.Reply{Status: wire.Miss, Version: uint64(v)}
		c.confirmOwnership(&r, k, epoch, v, now)
		return r
	}
	failpoint.At(failpoint.WriteDue)
	if q.Has(wire.LateWrite) {
		ns.SupersedeWrite(k.Hash) // before the deletion
	}
	c.barriers.raise(ns, k.Hash, q, now)
	v, res := c.Store.Remove(k, segment.Removal{
		Soft: q.Has(wire.Soft), Stale: time.Duration(q.StaleMS) * time.Millisecond, Compare: kv.Version(q.Compare),
	}, now)
	r := wire.Reply{Version: uint64(v)}
	switch res {
	case segment.Exists:
		r.Status, v = wire.Exists, 0 // nothing was changed, but a barrier stays
	case segment.Absent, segment.NotOwner:
		r.Status = wire.Miss
	}
	failpoint.At(failpoint.WriteDone)
	c.confirmOwnership(&r, k, epoch, v, now)
	return r
}
