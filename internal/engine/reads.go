package engine

import (
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Local answers requests of keys from what this host has: reads from what it owns and from its copies; writes
// (writes.go) and METAGETs (metaget.go), which may change something, of what it owns.
type Local struct {
	*deps
	barriers *Barriers
	remote   *Remote
	loads    *Loads
	tokens   *Tokens
	hot      *inspect.Sketch
}

// Value looks a key up in what this host owns and in its copies, and appends the value to
// dst. GET and MGET call it. A value longer than limit is not appended: then r.Source is
// zero and size is the value's length. MOVED means that the request must go the slow way;
// it is not counted.
func (c *Local) Value(
	dst []byte, pins *namespaces.Pins, q *wire.Request, key []byte, limit int, now kv.Moment, fetchedEpoch uint32,
	r *wire.Reply,
) (out []byte, size int, ns *namespaces.Namespace) {
	if err := CheckKey(key); err != nil {
		*r = wire.ErrorReply(err)
		return dst, 0, c.Namespaces.None
	}
	if ns = pins.Read(q.Namespace); ns == nil {
		*r = c.nameless(q, key, now, fetchedEpoch)
		return dst, 0, c.Namespaces.None
	}
	k := ns.Key(key)
	asOf, share := c.stamp(q, k, now)
	partition := k.Hash.Partition()
	epoch := c.Node.OwnershipEpoch(partition)
	if epoch == 0 {
		if out, size = c.remote.appendTo(dst, q, k, limit, now, share, r); r.Status != wire.Moved && size <= limit {
			c.noteRead(pins, ns, k, now)
		}
		return out, size, ns
	}
	// A miss with fresh must be true. Other reads, whose misses prove nothing, look only then.
	coming := q.Has(wire.Fresh) && c.coming(partition)
	at := len(dst)
	dst, info, ok := c.Store.Read(dst, k, limit, asOf != 0 || share.asOf != 0, now.Boot)
	failpoint.At(failpoint.ValueRead)
	if failpoint.Out(failpoint.AsOfFirst) && asOf != 0 {
		asOf = c.HLC.Next(now.Wall)
	}
	switch {
	case !ok && q.Has(wire.StaleOK) && q.Op != wire.OpLease && c.stale(ns, k, limit, now, r):
		return dst, int(r.Size), ns
	case !ok:
		if *r = c.missed(epoch == fetchedEpoch, coming || ns.Waits(q), partition, epoch); q.Has(wire.Fresh) {
			c.stays(r, k, now)
		}
		return dst, 0, ns
	case info.Kind == kv.Absent:
		c.SharedMemory.owned(share, k, nil, info.Facts, 0, epoch)
		*r = wire.Reply{}
		r.SetFacts(info.Facts, now)
		c.attest(r, asOf)
		c.noteRead(pins, ns, k, now)
		return dst, 0, ns
	case !q.Has(wire.NoLoad) && ns.RefreshEarly(info.Deadline, now):
		c.loads.refresh(ns, k, false)
	}
	*r = wire.Reply{} // in place: a literal with fields would be copied
	r.SetFacts(info.Facts, now)
	c.attest(r, asOf)
	if info.Size <= limit {
		c.SharedMemory.owned(share, k, dst[at:], info.Facts, ns.RefreshWindow(), epoch)
		r.Source = wire.SourceL2
		c.noteRead(pins, ns, k, now)
	}
	return dst, info.Size, ns
}

// missed answers a read of a key that was not found in an ownership: with a miss, if it is true
// or proves nothing. waits: there is something else to be asked; asked: it was.
func (c *Local) missed(asked, waits bool, partition uint16, epoch uint32) wire.Reply {
	if c.Node.OwnershipEpoch(partition) != epoch || !asked && (waits || c.coming(partition)) {
		return Moved()
	}
	return wire.Reply{Status: wire.Miss}
}

// stays makes sure that a key which is absent stays absent, until it is written.
func (c *Local) stays(r *wire.Reply, k kv.Key, now kv.Moment) {
	if r.Status == wire.Miss && !c.Store.Missed(k, now) {
		*r = Moved()
	}
}

// stamp is called before the ownership is checked and the value is read: a value attested as
// of a moment must have been current at that moment. asOf is zero unless the answer is to be
// attested.
func (c *Local) stamp(q *wire.Request, k kv.Key, now kv.Moment) (asOf kv.Version, share publication) {
	if q.Has(wire.Share) {
		share = c.SharedMemory.beginShare(q, k, c.HLC, now)
	}
	if q.Has(wire.Attest) {
		asOf = c.HLC.Next(now.Wall)
	}
	return asOf, share
}

// noteRead notes one of many reads that this host has answered from what it has.
func (c *Local) noteRead(pins *namespaces.Pins, ns *namespaces.Namespace, k kv.Key, now kv.Moment) {
	if pins.Reads.Take() {
		c.hot.Note(ns.Name, k, now.Boot)
	}
	if ns.AuditsHits() {
		c.Namespaces.Audits.ChooseHits(ns, k, 1)
	}
}

// stale answers a read with a stale value if the namespace's policy is not to wait for a
// new one, and starts the load of the new one. If there may be one that is longer than limit,
// the reply has its size alone, as Value says.
func (c *Local) stale(ns *namespaces.Namespace, k kv.Key, limit int, now kv.Moment, r *wire.Reply) bool {
	if n := c.Store.Length(k); n > limit {
		*r = wire.Reply{Size: uint64(n)}
		return true
	}
	old, ok := c.loads.staleReply(ns, k, now)
	if ok {
		*r = old
		c.loads.refresh(ns, k, true)
	}
	return ok
}

// nameless answers a read in a namespace without a slot here: this host has no entry of
// it.
func (c *Local) nameless(q *wire.Request, key []byte, now kv.Moment, fetchedEpoch uint32) wire.Reply {
	if !kv.ValidNamespace(string(q.Namespace)) {
		return wire.ErrorReply(namespaces.BadName(q.Namespace))
	}
	if q.Op == wire.OpLease && fetchedEpoch == 0 {
		return Moved() // a token needs a slot
	}
	k := kv.Key{Hash: c.Namespaces.Hash(q.Namespace, key), Bytes: key}
	if c.epochFor(q, k, fetchedEpoch, now) == 0 {
		return Moved()
	}
	r := wire.Reply{Status: wire.Miss}
	if !mayGuess(q) && c.Node.OwnershipEpoch(k.Hash.Partition()) != 0 {
		c.stays(&r, k, now)
	}
	return r
}

// sampleOf is how many reads an app has for each key that it reports.
const sampleOf = 16

// Reported counts reads that an app has answered itself, and notes the sample of their keys:
// eviction must not take these for unused. The app may say what it likes, and it can only add
// to the statistics of the namespace.
func (c *Local) Reported(q *wire.Request, pins *namespaces.Pins, now kv.Moment) {
	ns := pins.Read(q.Namespace)
	if ns == nil {
		return
	}
	n := q.Hits
	counts := &ns.Counts[wire.OpGet]
	namespaces.AddReported(&counts[namespaces.HitShared], n.Shared)
	namespaces.AddReported(&counts[namespaces.MissShared], n.Absent)
	namespaces.AddReported(&counts[namespaces.HitNear], n.Near)
	namespaces.AddReported(&c.SharedMemory.hits, n.Shared+n.Absent)
	each := max(sampleOf, (n.Shared+n.Absent+n.Near)/uint32(max(1, len(q.Keys)))) // reads of a key
	for _, key := range q.Keys {
		if CheckKey(key) != nil {
			continue
		}
		k := ns.Key(key)
		c.hot.NoteReads(ns.Name, k, each, now.Boot)
		if ns.AuditsHits() {
			c.Namespaces.Audits.ChooseHits(ns, k, each)
		}
		switch {
		case c.Node.OwnershipEpoch(k.Hash.Partition()) != 0:
			c.Store.Touched(k)
		case c.remote.L1 != nil:
			c.remote.L1.Touched(k.Hash)
		}
	}
}
