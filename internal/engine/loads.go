package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// In a namespace with an origin a missing key is loaded by the host that owns it, once
// for all readers on all hosts. The result has the version of the moment at which the
// load began. A change meanwhile keeps the result out of the store, by the same question
// as for every copy. It also takes the load out of the table of loads, so that a read
// after the change starts a new one.
//
//	way in      asked in the store's critical section
//	load, FILL  the ownership it began in lives; Admit; no load barrier since it began

// Stamp returns the moment at which a load begins.
func (c *Engine) Stamp() flight.Stamp {
	now := c.Clock.Read()
	return flight.Stamp{Version: c.HLC.Next(now.Wall), At: now.Boot}
}

// detach makes later reads of a hash start a load, or a call of its owner, of their own.
// The change of the key has been stamped.
func (c *Engine) detach(h kv.Hash) {
	c.Calls.detach(h)
	if failpoint.Out(failpoint.Detach) {
		return
	}
	c.Leases.Detach(h)
	for _, l := range c.Names.Loads {
		l.Detach(h)
	}
}

// detachIf does the same for all keys that match.
func (c *Engine) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	c.Calls.detachIf(match)
	if failpoint.Out(failpoint.Detach) {
		return
	}
	c.Leases.DetachIf(match)
	for _, l := range c.Names.Loads {
		l.DetachIf(match)
	}
}

// DetachSlot does the same for a namespace.
func (c *Engine) DetachSlot(id kv.NamespaceID) {
	c.detachIf(func(of kv.NamespaceID, _ kv.Hash) bool { return of == id })
}

// keep stores what a load or an app has brought for a key, and reports whether it did.
// The value is kept only if the ownership it was asked for in still lives, if nothing has
// changed since, and if the app has not given up the request.
func (c *Engine) keep(ns *namespaces.Namespace, key kv.Key, holding uint32, generation uint16, r flight.Result, until time.Duration, ends func(now kv.Moment) kv.Deadline) bool {
	now := c.Clock.Read()
	c.Node.CheckPause(now.Boot)
	p := key.Hash.Partition()
	f := segment.Fill{
		Value: r.Bytes, Flags: r.Flags, Version: r.Version, Absent: r.Absent, Generation: generation,
		Deadline: ends(now), Until: until,
		Admit: func() bool {
			return c.Node.OwnershipEpoch(p) == holding &&
				(c.Ledger.Admit(key.Namespace, key.Hash, r.Version, r.Version) || failpoint.Out(failpoint.AdmitAtLoad)) &&
				!c.Barred(ns, key, r.At) && !ns.WriteThrough.Writes(key.Hash)
		},
	}
	return c.Store.Fill(key, f, now) == segment.Stored && c.stillOwner(p, holding)
}

// NewLoad returns a load of a key that this host owns. The load belongs to that
// ownership, even if it begins after the ownership has ended: a read under a later
// ownership does not join it.
func (c *Engine) NewLoad(ns *namespaces.Namespace, key kv.Key, holding uint32) flight.Load {
	key.Bytes = bytes.Clone(key.Bytes)
	var generation uint16
	joinedIn := holding
	if failpoint.Out(failpoint.JoinOwnership) {
		joinedIn = 0
	}
	return flight.Load{
		Key:            key,
		OwnershipEpoch: joinedIn,
		Begin: func() flight.Stamp {
			generation = c.Store.Generation(key.Hash.Partition())
			return c.Stamp()
		},
		Fetch: func(ctx context.Context) (loader.Value, error) {
			begun := c.Clock.Read().Boot
			v, err := ns.Origin.Guard.Load(ctx, key.Bytes)
			took := c.Clock.Read().Boot - begun
			ns.LoadTime.Observe(took.Seconds())
			if loader.Answered(err) {
				ns.Took.Add(took)
				ns.Early.Store(int64(earlyReach * ns.Policy.Beta * float64(ns.Took.Mean())))
			}
			if err == nil {
				ns.KeyFilter.Add(key.Hash) // although no app may have announced it
			}
			return v, err
		},
		Keep: func(r flight.Result) bool {
			return c.keep(ns, key, holding, generation, r, 0, func(now kv.Moment) kv.Deadline { return ns.Lives(&r, now) })
		},
	}
}

// Load answers a read of a key that is missing here with a load from the origin.
func (c *Engine) Load(ctx context.Context, ns *namespaces.Namespace, key kv.Key, q *wire.Request, deadline time.Duration) wire.Reply {
	if err := ns.Origin.Keys.Check(key.Bytes); err != nil {
		return wire.ErrorReply(wire.Errorf(wire.BadRequest, "%v", err))
	}
	if c.lacks(ns, key) {
		return wire.Reply{Status: wire.Miss, Why: wire.Absent}
	}
	holding := c.Node.OwnershipEpoch(key.Hash.Partition())
	if holding == 0 {
		return Moved()
	}
	l := c.NewLoad(ns, key, holding)
	l.Fresh = q.Has(wire.Fresh)
	l.Missing = func() bool {
		_, there := c.Store.Peek(l.Key, c.Clock.Read().Boot)
		return !there
	}
	ctx, cancel := context.WithTimeout(ctx, deadline-c.Clock.Read().Boot)
	defer cancel()
	r, err := ns.Loads.Get(ctx, l)
	return c.Loaded(ns, key, q, &r, err)
}

// Loaded answers with the result of a load.
func (c *Engine) Loaded(ns *namespaces.Namespace, key kv.Key, q *wire.Request, r *flight.Result, err error) wire.Reply {
	now := c.Clock.Read()
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent):
		a := uncached(r.Value, r.Version)
		if r.Absent {
			a = wire.Reply{Status: wire.Miss, Why: wire.Absent, Version: uint64(r.Version)}
		}
		// A value that was kept has an end: a millisecond, if it has gone again by now. A
		// value that was not kept has none, and answers only the reads that have waited.
		if r.Uncached || r.Absent && ns.Policy.NegativeTTL <= 0 {
			return a
		}
		a.TTLMS = 1
		if info, there := c.Store.Peek(key, now.Boot); there && info.Version == r.Version {
			a.TTLMS = info.Deadline.TTLms(now.Boot)
		}
		if q.Has(wire.Attest) {
			c.attestAs(&a, r.Version)
		}
		return a
	case errors.Is(err, flight.ErrPresent):
		return Moved()
	}
	if q.Has(wire.StaleOK) {
		if value, old, ok := c.Store.GetStale(nil, key, now.Boot); ok && ns.Policy.StaleIfFailed(oldOf(&old), err) {
			return oldReply(value, &old, now)
		}
	}
	return loadError(ns, err)
}

// loadError returns the reply for a load that has failed.
func loadError(ns *namespaces.Namespace, err error) wire.Reply {
	switch {
	case errors.Is(err, loader.ErrBusy):
		return wire.ErrorReply(wire.Errorf(wire.Busy, "namespace %s: %v: try again", ns.Name, err))
	case errors.Is(err, loader.ErrBadKey):
		return wire.ErrorReply(wire.Errorf(wire.BadRequest, "namespace %s: %v", ns.Name, err))
	case errors.Is(err, flight.ErrClosed):
		return wire.ErrorReply(wire.Errorf(wire.Unavailable, "this sidecar is stopping: try again"))
	}
	status, text := wire.Origin, err.Error()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		status = wire.Timeout
	}
	var shown namespaces.Hidden
	switch {
	case errors.As(err, &shown):
		text = shown.Text
	case status == wire.Timeout:
		text = namespaces.OriginName(ns.Name, ns.Origin.Name) + ": did not answer in the request's time; its load goes on: ask again, or give more time"
	default: // errors of the loads themselves
		text = namespaces.OriginName(ns.Name, ns.Origin.Name) + ": " + text
	}
	return wire.ErrorReply(wire.Errorf(status, "%s", text))
}

// refresh loads a key in the background, unless a load of it is under way.
func (c *Engine) refresh(ns *namespaces.Namespace, key kv.Key, missing bool) {
	holding := c.Node.OwnershipEpoch(key.Hash.Partition())
	if ns.Origin == nil || ns.Origin.Keys.Check(key.Bytes) != nil || holding == 0 {
		return
	}
	l := c.NewLoad(ns, key, holding)
	if missing {
		l.Missing = func() bool {
			_, there := c.Store.Peek(l.Key, c.Clock.Read().Boot)
			return !there
		}
	}
	_, _ = ns.Loads.Refresh(l) // if it is shed, the next read tries again
}

// refreshEarly loads the key of a hit again if its value is likely to end soon.
func (c *Engine) refreshEarly(ns *namespaces.Namespace, key kv.Key, d kv.Deadline, now kv.Moment) {
	if ns.Policy.RefreshEarly(d.Remaining(now.Boot), ns.Took.Mean(), rand.Float64()) {
		c.refresh(ns, key, false)
	}
}

// earlyReach bounds how early a refresh may begin: −ln r exceeds it once in 480 million
// times, so a hit with more time left does not draw r.
const earlyReach = 20

// loadWithoutOwner loads a key whose owner cannot be reached, within the limits of this
// host. The result is not kept and not shared, since this host would not hear of an
// invalidation.
func (c *Engine) loadWithoutOwner(ctx context.Context, q *wire.Request, deadline time.Duration) (r wire.Reply, ok bool) {
	left := deadline - c.Clock.Read().Boot
	if left <= 0 || !c.MayLoadWithoutOwner(q) {
		return r, false
	}
	ns := c.Names.Lookup(q.Namespace)
	if err := ns.Origin.Keys.Check(q.Key); err != nil {
		return loadError(ns, err), true
	}
	if ns.KeyFilter != nil && !ns.KeyFilter.MayExist(ns.Key(q.Key)) {
		return r, false // the key may exist all the same: other hosts know of it
	}
	ctx, cancel := context.WithTimeout(ctx, left)
	defer cancel()
	ns.WithoutOwner.Add(1)
	version := c.Stamp().Version
	v, err := ns.Origin.Guard.Load(ctx, q.Key)
	switch {
	case errors.Is(err, loader.ErrAbsent):
		return wire.Reply{Status: wire.Miss, Why: wire.Absent}, true
	case err != nil:
		return loadError(ns, err), true
	}
	return uncached(v, version), true
}

// MayLoadWithoutOwner reports whether a read without an owner may have its key loaded
// here.
func (c *Engine) MayLoadWithoutOwner(q *wire.Request) bool {
	ns := c.Names.Lookup(q.Namespace)
	return ns != nil && ns.Origin != nil && !q.Has(wire.NoLoad) && !q.Has(wire.Fresh)
}

// uncached answers with a value that must not be kept.
func uncached(v loader.Value, version kv.Version) wire.Reply {
	return wire.Reply{Value: v.Bytes, Flags: v.Flags, Version: uint64(version), Source: wire.SourceOrigin, TTLMS: 1}
}

// Degraded reports whether a read has found no owner.
func Degraded(r *wire.Reply) bool { return r.Status == wire.Miss && r.Why == wire.Degraded }

// oldOf describes a stale value to loader's policies.
func oldOf(s *segment.Stale) loader.Old {
	return loader.Old{Exists: true, Ended: s.Ended, Invalidated: s.Invalidated}
}

// oldReply answers with a stale value.
func oldReply(value []byte, old *segment.Stale, now kv.Moment) wire.Reply {
	return wire.Reply{
		Status: wire.Stale, Value: value, Flags: old.Flags, Version: uint64(old.Version), Source: wire.SourceL2,
		TTLMS: old.Deadline.TTLms(now.Boot), AgeMS: uint64(max(0, old.Ended) / time.Millisecond),
	}
}
