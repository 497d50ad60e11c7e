package engine

import (
	"cmp"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// METAGET tells everything about a value, and only the owner of the key answers it. A caller
// may claim the right to load the value:
//
//	nothing is there            the answer is MISS; only with the option create
//	a softened value is there   the answer is STALE, with the value
//	a value ends soon           the answer is OK, with the value
//
// A claim is a lease token, and shares their table: a LEASE waits for the holder of a claim.
// But no caller waits for a token here. Its number is the random number of the token. A SET that names that number is
// the token's FILL. A claim ends with the connection of the socket that has it, but not with one of memcached's
// protocol, whose clients are pools.

// metaGet answers METAGET from what this host owns, or with MOVED.
func (c *Local) metaGet(q *wire.Request, pins *namespaces.Pins, now kv.Moment, fetchedEpoch uint32, r *wire.Reply) {
	if err := CheckKey(q.Key); err != nil {
		*r = wire.ErrorReply(err)
		return
	}
	ns := pins.Read(q.Namespace)
	if ns == nil && q.Has(wire.Claim|wire.CacheOnly) { // a token needs a slot, and so does a change
		var err *wire.Error
		if ns, err = pins.Write(q.Namespace); err != nil {
			*r = wire.ErrorReply(err)
			return
		}
	}
	if ns == nil {
		*r = c.nameless(q, q.Key, now, fetchedEpoch)
		return
	}
	k := ns.Key(q.Key)
	epoch := c.epochFor(q, k, fetchedEpoch, now)
	if epoch == 0 {
		*r = Moved()
		return
	}
	failpoint.At(failpoint.WriteDue)
	for range claimTries {
		seen, found := c.lookUp(ns, k, q, now, fetchedEpoch == epoch, r)
		if r.Status.IsError() || !q.Has(wire.Claim) || ns.Origin != nil || found && q.Has(wire.CacheOnly) {
			break
		}
		if c.claimLoad(ns, k, q, pins, epoch, &seen, found, r) {
			break
		}
		now = c.Clock.Read()
	}
	failpoint.At(failpoint.WriteDone)
	if r.Status == wire.OK && !q.Has(wire.Unread) {
		c.noteRead(pins, ns, k, now)
	}
	c.confirmOwnership(r, k, epoch, kv.Version(r.Event), now)
}

// claimTries bounds how often a claim finds that the value has changed since it was looked at.
const claimTries = 8

// lookUp fills in the reply, without a claim.
func (c *Local) lookUp(
	ns *namespaces.Namespace, k kv.Key, q *wire.Request, now kv.Moment, fetched bool, r *wire.Reply,
) (seen segment.Seen, found bool) {
	query := segment.Query{Limit: segment.NoLimit, Unread: q.Has(wire.Unread), ExecuteBefore: executeBefore(q)}
	if q.Has(wire.NoValue) {
		query.Limit = -1
	}
	if query.Touch = q.Has(wire.Touch) && q.TTLMS != wire.TTLDefault; query.Touch {
		query.Deadline = ns.Deadline(q.TTLMS, now)
	}
	if query.End = q.Has(wire.CacheOnly); query.End {
		c.barriers.raise(ns, k.Hash, q, now) // as by a DELETE
	}
	value, seen, res := c.Store.Look([]byte{}, k, query, now)
	found = res == segment.Found && seen.Kind != kv.Absent && !(seen.Kind == kv.Stale && ns.Waits(q))
	switch {
	case res == segment.Overdue:
		*r = c.Deadlines.tooLate(q)
	case res == segment.NotOwner, !found && seen.Kind != kv.Absent && !fetched && ns.Waits(q):
		*r = Moved()
	case !found:
		*r = wire.Reply{Status: wire.Miss, Event: uint64(seen.Event)}
		if seen.Kind == kv.Absent {
			r.Why = wire.Absent
		}
	default:
		*r = seenReply(value, &seen, now)
		if seen.Kind != kv.Stale && !query.End && !q.Has(wire.NoLoad) && ns.RefreshEarly(seen.Deadline, now) {
			c.loads.refresh(ns, k, false)
		}
	}
	return seen, found
}

// seenReply answers with a value. The version has the wall time of the write.
func seenReply(value []byte, seen *segment.Seen, now kv.Moment) wire.Reply {
	r := wire.Reply{
		Value: value, Source: wire.SourceL2, Size: uint64(seen.Size), Read: seen.Read, Event: uint64(seen.Event),
		IdleMS: uint64(max(0, now.Wall-seen.Version.Wall().UnixMilli())),
	}
	r.SetFacts(seen.Facts, now)
	return r
}

// claimLoad adds the claim to a reply, if the value needs a new load. It returns false if the
// value has changed since it was seen.
func (c *Local) claimLoad(
	ns *namespaces.Namespace, k kv.Key, q *wire.Request, pins *namespaces.Pins, epoch uint32,
	seen *segment.Seen, found bool, r *wire.Reply,
) bool {
	now := c.Clock.Read()
	renew := time.Duration(q.RenewMS) * time.Millisecond
	fresh := found && seen.Kind != kv.Stale
	switch {
	case !found && !q.Has(wire.Create):
		return true
	case fresh && (seen.Before == 0 || seen.Before.Remaining(now.Boot) >= renew):
		return true
	case fresh && c.barriers.Barred(ns.Now(), k, now.Boot): // it would not be replaced
		return true
	case c.Deadlines.over(executeBefore(q)):
		*r = c.Deadlines.tooLate(q)
		return true
	}
	if err := checkAllowed(ns, k.Bytes); err != nil {
		if !found {
			*r = wire.ErrorReply(err)
		}
		return true
	}
	claim := c.tokens.newClaim(ns, k, epoch, pins.By)
	claim.Usual, claim.Ends = claim.Time, true
	claim.Time = cmp.Or(time.Duration(q.LeaseMS)*time.Millisecond, claim.Time)
	out, err := c.LeaseTokens.Try(claim)
	switch {
	case err != nil && !found:
		*r = claimError(ns, err)
		return true
	case err != nil: // the value is worth more than the claim
		return true
	}
	r.Claim, r.Number = wire.ClaimTaken, int64(out.Random)
	if out.Won {
		r.Claim = wire.ClaimWon
	}
	if info, present := c.Store.Peek(k, now.Boot); present != fresh || fresh && info.Version != seen.Version {
		if out.Won {
			c.LeaseTokens.Abandon(out.Token)
		}
		r.Claim, r.Number = wire.ClaimNone, 0
		return false
	}
	if !found {
		r.TTLMS = max(1, out.Left.Milliseconds())
	}
	return true
}

// metaGetLoaded answers METAGET after a load of its value, with what is in the store now, or with
// what was loaded if that was not kept.
func (c *Local) metaGetLoaded(q *wire.Request, pins *namespaces.Pins, epoch uint32, l *wire.Reply) (r wire.Reply) {
	if l.Status != wire.OK {
		r = *l
		r.TTLMS = 0 // of a claim
		return r
	}
	c.metaGet(q, pins, c.Clock.Read(), epoch, &r)
	if r.Status != wire.Miss {
		return r
	}
	event := r.Event
	r = *l
	r.Event = event
	if r.Size = uint64(len(r.Value)); q.Has(wire.NoValue) {
		r.Value = []byte{}
	}
	return r
}
