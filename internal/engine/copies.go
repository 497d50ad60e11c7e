package engine

import (
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l1"
)

// CopyOf returns this host's copy of another's entry, if it may be served: it
// came from the process that the ring names now, everything that this one had
// accepted until a moment within the bound has been applied here, and nothing of
// it has outdated the copy.
func (c *Engine) CopyOf(key kv.Key, owner *cluster.Owner, now kv.Moment) *l1.Copy {
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

// copyInto answers a read from this host's copy of another's entry, or says
// that it is for others to answer. An app's request with Vouch may be answered
// from a copy. Another sidecar's may not: a copy of a copy would be behind by both.
func (c *Engine) copyInto(dst []byte, q *wire.Request, key kv.Key, limit int, now kv.Moment, r *wire.Reply) (out []byte, size int) {
	*r = Moved()
	if q.Has(wire.Fresh) || q.Has(wire.Attest) && !q.App {
		return dst, 0
	}
	owner := c.Node.View().Owner(key.Hash.Partition())
	if owner == nil || owner.Process == c.Node.Self() {
		return dst, 0
	}
	cp := c.CopyOf(key, owner, now)
	if cp == nil {
		return dst, 0
	}
	source, value := wire.SourceL1, cp.Value()
	if len(value) > limit {
		source = 0
	}
	if !c.copied(q, cp, source, owner.LeasedAt(), now, r) && q.Has(wire.Attest) {
		*r = Moved()
		return dst, 0
	}
	if len(value) > limit {
		return dst, len(value)
	}
	return append(dst, value...), len(value)
}

// copied answers from a copy, without its value. It was the latest when it was
// asked for, and at leased. It says whether somebody vouches for it, where the
// request asks for that.
func (c *Engine) copied(q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment, r *wire.Reply) (vouched bool) {
	*r = wire.Reply{
		Flags: cp.Flags, Version: uint64(cp.Version), TTLMS: cp.Deadline.TTLms(now.Boot), Source: source,
		AgeMS: uint64(max(0, now.Boot-max(cp.Since, leased)) / time.Millisecond),
	}
	if cp.Absent {
		r.Status, r.Why, r.Source, r.AgeMS = wire.Miss, wire.Absent, 0, 0
	}
	return q.Has(wire.Attest) && c.Attest(cp, now, r)
}

// valueOf answers with a copy's value, which nobody may change.
func (c *Engine) valueOf(q *wire.Request, cp *l1.Copy, source wire.Source, leased time.Duration, now kv.Moment) (r wire.Reply) {
	c.copied(q, cp, source, leased, now, &r)
	r.Value = cp.Value()
	return r
}

// EndOf is the end of a TTL that another host has told of, on the boot clock, and
// zero for none. It counts from before that one was asked; rates of clocks may differ,
// and what has less than a millisecond left says one.
func (c *Engine) EndOf(ttlMS int64, asked time.Duration) time.Duration {
	if ttlMS <= 0 {
		return 0
	}
	if failpoint.Out(failpoint.EndFromAsked) {
		asked = c.Clock.Read().Boot
	}
	return asked + max(1, time.Duration(min(ttlMS-1, int64(kv.MaxDeadline)))*time.Millisecond*98/100)
}

// Take keeps what the owner has answered, and a copy of a value if nothing has
// outdated it.
func (c *Engine) Take(cl *Call, r *wire.Reply) {
	c.HLC.Observe(kv.Version(r.AsOf))
	absent := r.Status == wire.Miss && r.Why == wire.Absent
	if r.Attested || r.Status == wire.Stale { // what nobody may keep has no end
		cl.ends = c.EndOf(r.TTLMS, cl.at)
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
	cl.copy = cp
	switch {
	case !c.Ledger.Admit(cp.Namespace, cp.Hash, cp.Version, cp.AsOf) && !failpoint.Out(failpoint.AdmitAtFill):
		c.Counts.FillsRefused.Add(1)
	case cl.asks.Options&wire.Fresh != 0: // who wants no copy makes none, and leaves no older one
		c.L1.Replace(cp)
	default:
		c.L1.Put(cp)
	}
}
