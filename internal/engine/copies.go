package engine

import (
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// Copies are this host's copies of entries that other hosts own.
type Copies struct {
	*base
	watches *Watches
}

// Get returns this host's copy of an entry that another host owns, or nil if the copy
// may not be served. It may be served if it came from the process that the ring names
// now, if this host has applied all changes that this process had accepted up to a moment
// within the bound, and if none of them has outdated the copy.
func (c *Copies) Get(key kv.Key, owner *cluster.Owner, now kv.Moment) *l1.Copy {
	cp, ok := c.L1.Get(key)
	if !ok {
		return nil
	}
	if cp.Owner != &owner.Process && !failpoint.Out(failpoint.OwnerAtHit) ||
		!owner.Leased(now.Boot, c.Names.Bound(key.Namespace)) && !failpoint.Out(failpoint.LeaseAtHit) ||
		cp.Deadline.Passed(now.Boot) ||
		!c.Ledger.Admit(key.Namespace, key.Hash, cp.Version, cp.AsOf) && !failpoint.Out(failpoint.AdmitAtHit) {
		c.Counts.CopiesRefused.Add(1)
		return nil
	}
	return cp
}

// appendTo answers a read from this host's copy of an entry that another host owns, or
// with MOVED. A request of an app with option Attest may be answered from a copy. A
// request of another sidecar with Attest may not: a copy of a copy would be behind by the
// lags of both.
func (c *Copies) appendTo(
	dst []byte, q *wire.Request, key kv.Key, limit int, now kv.Moment, share publication, r *wire.Reply,
) (out []byte, size int) {
	*r = Moved()
	if q.Has(wire.Fresh) || q.Has(wire.Attest) && !q.App {
		return dst, 0
	}
	owner := c.Node.View().Owner(key.Hash.Partition())
	if owner == nil || owner.Process == c.Node.Self() {
		return dst, 0
	}
	cp := c.Get(key, owner, now)
	if cp == nil {
		return dst, 0
	}
	if share.asOf != 0 {
		c.Shared.copied(share, key, cp, owner)
	}
	source, value := wire.SourceL1, cp.Value()
	if len(value) > limit {
		source = 0
	}
	if !c.fill(q, cp, source, owner.LeasedAt(), now, r) && q.Has(wire.Attest) {
		*r = Moved()
		return dst, 0
	}
	if len(value) > limit {
		return dst, len(value)
	}
	return append(dst, value...), len(value)
}

// fill fills r from a copy, without the value. The copy was current when it was asked
// for, and at leased. The result reports whether the answer is attested, if the request
// asks for that.
func (c *Copies) fill(
	q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment, r *wire.Reply,
) (attested bool) {
	*r = wire.Reply{
		Flags: cp.Flags, Version: uint64(cp.Version), TTLMS: cp.Deadline.TTLms(now.Boot), Source: source,
		AgeMS: uint64(max(0, now.Boot-max(cp.Since, leased)) / time.Millisecond),
	}
	if cp.Absent {
		r.Status, r.Why, r.Source, r.AgeMS = wire.Miss, wire.Absent, 0, 0
	}
	return q.Has(wire.Attest) && c.watches.Attest(cp, now, r)
}

// reply answers with the value of a copy. The value is shared and must not be changed.
func (c *Copies) reply(
	q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment,
) (r wire.Reply) {
	c.fill(q, cp, source, leased, now, &r)
	r.Value = cp.Value()
	return r
}

// Take keeps the owner's answer for a call, and puts a value into L1 unless a change has
// outdated it.
func (c *Copies) Take(cl *Call, r *wire.Reply) {
	c.HLC.Observe(kv.Version(r.AsOf))
	absent := r.Status == wire.Miss && r.Why == wire.Absent
	if r.Attested || r.Status == wire.Stale { // an answer that must not be kept has no end
		cl.ends = handoff.EndOf(c.Clock, r.TTLMS, cl.at)
	}
	if r.Status != wire.OK && !absent || !r.Attested {
		cl.reply = owned(r)
		return
	}
	id := &cl.Owner.Process
	if string(r.Owner) != string(id.Node) || r.Epoch != uint64(id.Epoch) {
		cl.Err = errors.New("the answer comes from another process")
		return
	}
	cp := &l1.Copy{
		Hash: cl.Key.Hash, Namespace: cl.Key.Namespace, Absent: absent, Flags: r.Flags, Version: kv.Version(r.Version),
		Owner: id, AsOf: kv.Version(r.AsOf), Since: cl.at, Deadline: kv.Before(cl.ends),
	}
	cp.SetBytes(cl.Key.Bytes, r.Value)
	cl.copy, cl.source = cp, sourceOf(r)
	switch {
	case !c.Ledger.Admit(cp.Namespace, cp.Hash, cp.Version, cp.AsOf) && !failpoint.Out(failpoint.AdmitAtFill):
		c.Counts.FillsRefused.Add(1)
	case cl.asks.Options&wire.Fresh != 0: // a fresh read makes no copy, and leaves no older one
		c.L1.Replace(cp)
	default:
		c.L1.Put(cp)
	}
}
