package engine

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// lacks reports whether the origin surely has no such key. Only the owner of the key can
// know that.
func (loads *Loads) lacks(ns *namespaces.Namespace, key kv.Key) bool {
	filter := ns.Now().KeyFilter // an earlier one is not told of changes any more
	if filter == nil {
		return false
	}
	if loads.Node.CheckPause(loads.Clock.Read().Boot); loads.Ledger.Closed(ns.ID) {
		return false // it may not have heard of all
	}
	return loads.Node.OwnershipEpoch(key.Hash.Partition()) != 0 && !filter.MayExist(key.Hash)
}

// In a namespace with an origin a missing key is loaded by the host that owns it, once
// for all readers on all hosts. The result has the version of the moment at which the
// load began. A change meanwhile keeps the result out of the store, by the same question
// as for every copy. It also takes the load out of the table of loads, so that a read
// after the change starts a new one.
//
//	way in      asked in the store's critical section
//	load, FILL  the ownership it began in lives; Admit; no load barrier since it began

// Loads loads missing values from the origins of their namespaces.
type Loads struct {
	*deps
	barriers *Barriers
	remote   *Remote
	slow     *inspect.SlowList
	memory   loader.Memory // of loaded values
}

// memory is the account of origins' answers.
type memory struct{ *quota.Account }

// Take charges n bytes, or returns false.
func (mem memory) Take(n int) bool { return mem.Account.Take(quota.ForPeers, int64(n)) == nil }

// Give gives n bytes back.
func (mem memory) Give(n int) { mem.Account.Give(quota.ForPeers, int64(n)) }

// Stamp returns the moment at which a load begins.
func (loads *Loads) Stamp() flight.Stamp {
	now := loads.Clock.Read()
	return flight.Stamp{Version: loads.HLC.Next(now.Wall), At: now.Boot}
}

// keep stores what a load or an app has brought for a key, and reports whether it did. If
// that is a change, event is its version. The value is kept only if the ownership it was
// asked for in still lives, if nothing has changed since, and if the app has not given up
// the request. An ownership that ends afterwards hands the value over, or loses it.
func (loads *Loads) keep(
	ns *namespaces.Namespace, key kv.Key, epoch uint32, generation uint16, r flight.Result, until time.Duration,
	ends func(now kv.Moment) kv.Deadline,
) (event kv.Version, kept bool) {
	now := loads.Clock.Read()
	loads.Node.CheckPause(now.Boot)
	p := key.Hash.Partition()
	f := segment.Fill{
		Value: r.Bytes, Facts: r.Facts(ends(now)), Generation: generation, ExecuteBefore: until,
		Admit: func() bool {
			return loads.Node.OwnershipEpoch(p) == epoch &&
				(loads.Ledger.Admit(key.Namespace, key.Hash, r.Version, r.Version) ||
					failpoint.Out(failpoint.AdmitAtLoad)) &&
				!loads.barriers.Barred(ns.Now(), key, r.At) && !ns.Writing(key.Hash)
		},
	}
	event, res := loads.Store.Fill(key, f, now)
	return event, res == segment.Stored
}

// New returns a load of a key that this host owns. The load belongs to that
// ownership, even if it begins after the ownership has ended: a read under a later
// ownership does not join it. The origin is asked on behalf of an account.
func (loads *Loads) New(ns *namespaces.Namespace, key kv.Key, epoch uint32, by *quota.Account) flight.Load {
	key.Bytes = bytes.Clone(key.Bytes)
	var generation uint16
	reserved := loader.Reservation{Memory: loads.memory}
	joinedIn := epoch
	if failpoint.Out(failpoint.JoinOwnership) {
		joinedIn = 0
	}
	return flight.Load{
		Key:            key,
		OwnershipEpoch: joinedIn,
		Begin: func() flight.Stamp {
			generation = loads.Store.Generation(key.Hash.Partition())
			return loads.Stamp()
		},
		Fetch: func(ctx context.Context) (loader.Value, error) {
			v, took, err := loads.fetch(quota.WithAccount(ctx, by), ns, key)
			ns.LoadTime.Observe(took.Seconds())
			if loader.Answered(err) {
				ns.Loaded(took)
			}
			if err == nil {
				ns.Now().KeyFilter.Add(key.Hash) // although no app may have announced it
				err = reserved.Take(len(v.Bytes))
			}
			if err != nil {
				v = loader.Value{}
			}
			return v, err
		},
		Over: reserved.Free,
		Keep: func(r flight.Result) bool {
			ends := func(now kv.Moment) kv.Deadline { return ns.Now().Lives(&r, now) }
			_, kept := loads.keep(ns, key, epoch, generation, r, 0, ends)
			return kept && loads.stillOwner(key.Hash.Partition(), epoch)
		},
	}
}

// fetch asks the origin for a key, and notes a load that is slow.
func (loads *Loads) fetch(
	ctx context.Context, ns *namespaces.Namespace, key kv.Key,
) (v loader.Value, took time.Duration, err error) {
	var trace inspect.Trace
	begun := loads.Clock.Read().Boot
	v, err = ns.Load(inspect.WithTrace(ctx, &trace), key.Bytes)
	now := loads.Clock.Read()
	took = now.Boot - begun
	loads.slow.Note([]byte(ns.Name), took, now, func() inspect.SlowCall {
		return inspect.SlowCall{
			Op: "LOAD", Key: bytes.Clone(key.Bytes), Hash: key.Hash, Keys: 1,
			Result: loadResult(err), Parts: trace.Parts(),
		}
	})
	return v, took, err
}

// loadResult names the end of a load. It keeps what the origin says to the log.
func loadResult(err error) string {
	switch {
	case err == nil:
		return "loaded"
	case errors.Is(err, loader.ErrAbsent):
		return "absent"
	case errors.Is(err, loader.ErrBusy):
		return "busy"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return "timeout"
	}
	return "failed"
}

// missing returns the question whether a key is still missing here.
func (loads *Loads) missing(key kv.Key) func() bool {
	return func() bool {
		_, present := loads.Store.Peek(key, loads.Clock.Read().Boot)
		return !present
	}
}

// Get answers a read of a key that is missing here with a load from the origin.
func (loads *Loads) Get(
	ctx context.Context, ns *namespaces.Namespace, key kv.Key, q *wire.Request, deadline time.Duration,
) wire.Reply {
	if err := checkAllowed(ns, key.Bytes); err != nil {
		return wire.ErrorReply(err)
	}
	if loads.lacks(ns, key) {
		return wire.Reply{Status: wire.Miss, Why: wire.Absent}
	}
	epoch := loads.Node.OwnershipEpoch(key.Hash.Partition())
	if epoch == 0 {
		return Moved()
	}
	l := loads.New(ns, key, epoch, quota.AccountOf(ctx))
	l.Fresh = q.Has(wire.Fresh)
	l.Missing = loads.missing(l.Key)
	ctx, cancel := context.WithTimeout(ctx, deadline-loads.Clock.Read().Boot)
	defer cancel()
	waited := inspect.BeginWait(ctx, inspect.Load, "")
	r, err := ns.Loads.Get(ctx, l)
	waited()
	return loads.Answer(ns, key, q, &r, err)
}

// Answer answers with the result of a load.
func (loads *Loads) Answer(
	ns *namespaces.Namespace, key kv.Key, q *wire.Request, r *flight.Result, err error,
) wire.Reply {
	now := loads.Clock.Read()
	switch {
	case err == nil, errors.Is(err, loader.ErrAbsent):
		a := uncached(r.Value, r.Version)
		if r.Absent {
			a = wire.Reply{Status: wire.Miss, Why: wire.Absent, Version: uint64(r.Version)}
		}
		// A value that was kept has an end: a millisecond, if it has gone again by now. A
		// value that was not kept has none, and answers only the reads that have waited.
		if r.NoStore || r.Absent && ns.Policy.NegativeTTL <= 0 {
			return a
		}
		a.TTLMS = 1
		asOf := loads.HLC.Next(now.Wall) // before the store is asked: see Local.stamp
		if info, still := loads.Store.Still(key, r.Version, q.Has(wire.Attest), now.Boot); still {
			a.TTLMS = info.Deadline.TTLms(now.Boot)
		} else {
			asOf = r.Version
		}
		if q.Has(wire.Attest) {
			loads.attest(&a, asOf)
		}
		return a
	case errors.Is(err, flight.ErrPresent):
		return Moved()
	}
	if q.Has(wire.StaleOK) {
		if value, old, ok := loads.Store.GetStale(nil, key, now.Boot); ok && ns.Policy.StaleIfFailed(&old, err) {
			return oldReply(value, &old, now)
		}
	}
	return loadError(ns, err)
}

// loadError returns the reply for a load that has failed.
func loadError(ns *namespaces.Namespace, err error) wire.Reply {
	switch {
	case errors.Is(err, loader.ErrBusy):
		return failed(wire.Busy, "namespace %s: %v: try again", ns.Name, err)
	case errors.Is(err, loader.ErrBadKey):
		return failed(wire.BadRequest, "namespace %s: %v", ns.Name, err)
	case errors.Is(err, flight.ErrClosed):
		return failed(wire.Unavailable, "this sidecar is stopping: try again")
	}
	status, text := wire.Origin, err.Error()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		status = wire.Timeout
	}
	var shown origin.Hidden
	if errors.As(err, &shown) {
		return failed(status, "%s", shown.Text)
	}
	if status == wire.Timeout { // else an error of the loads themselves
		text = "did not answer in the request's time; its load goes on: ask again, or give more time"
	}
	return failed(status, "%s: %s", origin.FullName(ns.Name, ns.Origin.Name), text)
}

// refresh loads a key in the background, unless a load of it is under way.
func (loads *Loads) refresh(ns *namespaces.Namespace, key kv.Key, missing bool) {
	epoch := loads.Node.OwnershipEpoch(key.Hash.Partition())
	if ns.Origin == nil || ns.Keys.Check(key.Bytes) != nil || epoch == 0 ||
		loads.barriers.Barred(ns.Now(), key, loads.Clock.Read().Boot) { // its result would be of no use
		return
	}
	l := loads.New(ns, key, epoch, nil)
	if missing {
		l.Missing = loads.missing(l.Key)
	}
	_, _ = ns.Loads.Refresh(l) // if it is shed, the next read tries again
}

// withoutOwner loads a key whose owner cannot be reached, within the limits of this
// host. The result is not kept and not shared, since this host would not hear of an
// invalidation.
func (loads *Loads) withoutOwner(ctx context.Context, q *wire.Request, deadline time.Duration) (r wire.Reply, ok bool) {
	left := deadline - loads.Clock.Read().Boot
	ns := loads.Namespaces.Lookup(q.Namespace)
	if left <= 0 || !mayWithoutOwner(ns, q) {
		return r, false
	}
	if err := checkAllowed(ns, q.Key); err != nil {
		return wire.ErrorReply(err), true
	}
	if filter := ns.Now().KeyFilter; filter != nil && !filter.MayExist(ns.Hash(q.Key)) {
		return r, false // the key may exist all the same: other hosts know of it
	}
	// Cancelled, not timed out: that a reader has no more time is no failure of the origin, and opens no breaker.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer time.AfterFunc(left, cancel).Stop()
	ns.WithoutOwner.Add(1)
	version := loads.Stamp().Version
	waited := inspect.BeginWait(ctx, inspect.Load, "")
	v, _, err := loads.fetch(ctx, ns, ns.Key(q.Key))
	if waited(); err == nil && quota.HeldOf(ctx).Take(len(v.Bytes)) != nil {
		err = loader.ErrNoMemory
	}
	switch {
	case errors.Is(err, loader.ErrAbsent):
		return wire.Reply{Status: wire.Miss, Why: wire.Absent}, true
	case err != nil:
		return loadError(ns, err), true
	}
	return uncached(v, version), true
}

// unsaid reports whether the miss of a read is none that it may be told. In a namespace with an origin only the
// origin, a remembered absence and the owner's key filter say that there is nothing: absent. Every read that may
// load passes this gate, here or, without a goroutine, in Wait.tell.
func (loads *Loads) unsaid(q *wire.Request, r *wire.Reply) bool {
	if r.Status != wire.Miss || r.Why == wire.Absent || !q.Op.Reads() || q.Has(wire.NoLoad) {
		return false
	}
	ns := loads.Namespaces.Lookup(q.Namespace)
	return ns != nil && ns.Origin != nil
}

// loadUnsaid answers a read whose miss must not be told: with a load without the owner, or with an error.
func (loads *Loads) loadUnsaid(
	ctx context.Context, q *wire.Request, miss *wire.Reply, deadline time.Duration,
) wire.Reply {
	why := miss.Message
	if miss.Why != wire.Degraded {
		why = []byte("the key's owner has not asked the origin")
	}
	switch r, ok := loads.withoutOwner(ctx, q, deadline); {
	case ok && (!r.Status.IsError() || r.Status == wire.BadRequest):
		return r
	case loads.Clock.Read().Boot >= deadline, r.Status == wire.Timeout:
		return failed(wire.Timeout, "%s; the origin has not answered in the rest of the request's time: ask again, "+
			"or give more time", why)
	case ok:
		return failed(r.Status, "%s; %s", why, r.Message)
	}
	return failed(wire.Unavailable, "%s", why)
}

// mayWithoutOwner reports whether a read without an owner may have its key loaded
// here.
func mayWithoutOwner(ns *namespaces.Namespace, q *wire.Request) bool {
	return ns != nil && ns.Origin != nil && q.Op.Lookup() && !q.Has(wire.NoLoad) && !q.Has(wire.Fresh)
}

// staleReply returns the answer with a stale value, if there is one that may be given
// before anything newer is asked for.
func (loads *Loads) staleReply(ns *namespaces.Namespace, k kv.Key, now kv.Moment) (r wire.Reply, ok bool) {
	value, old, ok := loads.Store.GetStale(nil, k, now.Boot)
	if !ok || !ns.Policy.Stale(&old) {
		return r, false
	}
	return oldReply(value, &old, now), true
}

// cached returns what a read through this host would find for the key. It is no read: it leaves no
// mark that would keep the entry.
func (loads *Loads) cached(k kv.Key, r *loader.Reservation) (value []byte, absent bool, v kv.Version, err error) {
	now := loads.Clock.Read()
	loads.Node.CheckPause(now.Boot)
	if loads.Node.OwnershipEpoch(k.Hash.Partition()) != 0 {
		if err := r.Take(loads.Store.Length(k)); err != nil {
			return nil, false, 0, err
		}
		value, seen, res := loads.Store.Look(nil, k, segment.Query{Limit: segment.NoLimit, Unread: true}, now)
		if res != segment.Found || seen.Kind == kv.Stale {
			return nil, false, 0, namespaces.ErrNotCached
		}
		return value, seen.Kind == kv.Absent, seen.Version, nil
	}
	owner := loads.Node.View().AssignedOwner(k.Hash.Partition())
	if owner == nil || loads.L1 == nil {
		return nil, false, 0, namespaces.ErrNotCached
	}
	cp := loads.remote.Get(k, owner, now)
	if cp == nil {
		return nil, false, 0, namespaces.ErrNotCached
	}
	return cp.Value(), cp.Kind == kv.Absent, cp.Version, nil
}
