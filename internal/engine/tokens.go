package engine

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// If the apps load missing values themselves, the owner of a key gives a lease token to
// one of the clients that miss the key; the others wait for that client's FILL. A token
// names the ownership that issued it. A later ownership, here or elsewhere, stores
// nothing that was loaded before it began.

// Tokens gives out lease tokens, and stores what apps fill with them.
type Tokens struct {
	*deps
	loads *Loads
}

// tokenHead is the size in bytes of a token without the node's name. A token is encoded
// as random, version, moment on the boot clock, epoch, ownership epoch, all big endian,
// then the node's name.
const tokenHead = 4*8 + 4

func (tokens *Tokens) pack(t flight.Token) []byte {
	b := make([]byte, 0, tokenHead+len(tokens.self))
	b = binary.BigEndian.AppendUint64(b, t.Random)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Version))
	b = binary.BigEndian.AppendUint64(b, uint64(t.At))
	b = binary.BigEndian.AppendUint64(b, uint64(tokens.Node.Self().Epoch))
	b = binary.BigEndian.AppendUint32(b, t.OwnershipEpoch)
	return append(b, tokens.self...)
}

// unpack decodes a token that this process may have issued. Only the table of leases
// knows whether it has.
func (tokens *Tokens) unpack(b []byte) (t flight.Token, ok bool) {
	if len(b) != tokenHead+len(tokens.self) || string(b[tokenHead:]) != string(tokens.self) ||
		binary.BigEndian.Uint64(b[24:]) != uint64(tokens.Node.Self().Epoch) {
		return t, false
	}
	t.Random = binary.BigEndian.Uint64(b)
	t.Version = kv.Version(binary.BigEndian.Uint64(b[8:]))
	t.At = time.Duration(binary.BigEndian.Uint64(b[16:]))
	t.OwnershipEpoch = binary.BigEndian.Uint32(b[32:])
	return t, true
}

// claim answers a LEASE of a key that is missing here: with a token, or with the value
// that the client with the token fills. MOVED means that the key must be looked up again.
func (tokens *Tokens) claim(
	ctx context.Context, ns *namespaces.Namespace, key kv.Key, q *wire.Request, deadline time.Duration,
) wire.Reply {
	if err := checkAllowed(ns, key.Bytes); err != nil {
		return wire.ErrorReply(err)
	}
	now := tokens.Clock.Read()
	epoch := tokens.Node.OwnershipEpoch(key.Hash.Partition())
	if epoch == 0 {
		return Moved()
	}
	claim := tokens.newClaim(ns, key, epoch, quota.AccountOf(ctx))
	var grant flight.Grant
	var err error
	if old, ok := tokens.loads.staleReply(ns, key, now); ok && q.Has(wire.StaleOK) {
		var out flight.Out
		if out, err = tokens.LeaseTokens.Try(claim); err == nil && !out.Won {
			return old
		}
		grant.Token = out.Token
	} else {
		ctx, cancel := context.WithTimeout(ctx, deadline-now.Boot)
		defer cancel()
		waited := inspect.BeginWait(ctx, inspect.Token, "")
		grant, err = tokens.LeaseTokens.Claim(ctx, claim)
		waited()
	}
	return tokens.outcome(ns, key, grant, err)
}

// outcome is the reply to a LEASE that has waited. MOVED means that the key must be looked up again.
func (tokens *Tokens) outcome(ns *namespaces.Namespace, key kv.Key, grant flight.Grant, err error) wire.Reply {
	switch {
	case errors.Is(err, flight.ErrAgain):
		return Moved()
	case err != nil:
		return claimError(ns, err)
	case !grant.HasToken():
		if !grant.Result.NoStore {
			return Moved() // it is in the store
		}
		return uncached(grant.Result.Value, grant.Result.Version)
	}
	return tokens.granted(ns, key, grant.Token)
}

// claimError returns the reply that says why there is no token.
func claimError(ns *namespaces.Namespace, err error) wire.Reply {
	var busy *wire.Error
	switch {
	case errors.As(err, &busy):
		return wire.ErrorReply(busy)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return wire.ErrorReply(waitedInVain)
	}
	return loadError(ns, err)
}

// Grant answers a LEASE without waiting: with a token, or with the reason why there is
// none for this client. It returns false if the request must go the slow way, for example
// because this host does not own the key, entries of its partition are on their way here,
// or its token is out.
func (tokens *Tokens) Grant(ns *namespaces.Namespace, q *wire.Request, by *quota.Account) (wire.Reply, bool) {
	claim, ok := tokens.claimOf(ns, q, by)
	if !ok {
		return wire.Reply{}, false
	}
	out, err := tokens.LeaseTokens.Try(claim)
	switch {
	case err != nil:
		return claimError(ns, err), true
	case !out.Won:
		return wire.Reply{}, false
	}
	r := tokens.granted(ns, claim.Key, out.Token)
	return r, r.Status != wire.Moved
}

// claimOf returns the claim of a LEASE of a key that this host owns, all of whose entries are here,
// and that only apps load. Its bytes are the request's.
func (tokens *Tokens) claimOf(
	ns *namespaces.Namespace, q *wire.Request, by *quota.Account,
) (claim flight.Claim, ok bool) {
	if ns.Origin != nil || q.Has(wire.StaleOK) || CheckKey(q.Key) != nil || checkAllowed(ns, q.Key) != nil {
		return claim, false
	}
	key := ns.Key(q.Key)
	partition := key.Hash.Partition()
	epoch := tokens.Node.OwnershipEpoch(partition)
	if epoch == 0 || tokens.coming(partition) {
		return claim, false
	}
	return tokens.newClaim(ns, key, epoch, by), true
}

// tokenPlace is the place of a token in an account.
type tokenPlace struct{ by *quota.Account }

// Take takes the place. A token that is handed over from another client is taken even if no place is left.
func (place tokenPlace) Take(handed bool) error {
	if handed {
		place.by.AcquireAnyway(quota.LeaseTokens, 1)
		return nil
	}
	if err := place.by.Acquire(quota.LeaseTokens); err != nil {
		return err
	}
	return nil
}

// Give gives the place back.
func (place tokenPlace) Give() { place.by.Release(quota.LeaseTokens) }

// YieldsTo says whether the place's connection has ended, and the other is of the same tenant.
func (place tokenPlace) YieldsTo(other flight.Place) bool {
	to, ok := other.(tokenPlace)
	return ok && place.by.Ended() && place.by.Tenant() == to.by.Tenant()
}

// newClaim returns the claim of a key on behalf of an account, or of this process.
func (tokens *Tokens) newClaim(ns *namespaces.Namespace, key kv.Key, epoch uint32, by *quota.Account) flight.Claim {
	claim := flight.Claim{Key: key, OwnershipEpoch: epoch, Begin: tokens.loads.Stamp, Time: ns.LeaseTime}
	if by != nil {
		claim.Place = tokenPlace{by}
	}
	return claim
}

// granted answers with a token, unless the key has been filled since it was missed.
func (tokens *Tokens) granted(ns *namespaces.Namespace, key kv.Key, t flight.Token) wire.Reply {
	if _, present := tokens.Store.Peek(key, tokens.Clock.Read().Boot); present {
		tokens.LeaseTokens.Abandon(t)
		return Moved()
	}
	return wire.Reply{Status: wire.Lease, Token: tokens.pack(t), TTLMS: ns.LeaseTime.Milliseconds()}
}

var waitedInVain = wire.Errorf(wire.Timeout,
	"another caller loads the key and has not filled it in the request's time: "+
		"ask again, or load it yourself without filling it")

// fill answers FILL at the owner of the key.
func (tokens *Tokens) fill(ns *namespaces.Namespace, key kv.Key, q *wire.Request, now kv.Moment) wire.Reply {
	t, ok := tokens.unpack(q.Token)
	if number, claim := wire.ClaimOf(q.Token); claim {
		t, ok = tokens.LeaseTokens.Named(key, number)
	}
	if q.Has(wire.Abandon) {
		if !ok || !tokens.LeaseTokens.Abandon(t) {
			return notStored("the token is not the present one of the key %.64q", q.Key)
		}
		return wire.Reply{}
	}
	if len(q.Value) > tokens.Config.MaxValue {
		return wire.ErrorReply(tooLarge(len(q.Value), tokens.Config.MaxValue))
	}
	if !ok {
		return notStored("the token is none that the present owner of the key %.64q has issued: "+
			"use the value, and ask again next time", q.Key)
	}
	event, err := tokens.use(ns, key, t, q)
	switch {
	case err != nil && tokens.Deadlines.over(executeBefore(q)):
		return tokens.Deadlines.tooLate(q)
	case err != nil && tokens.Ledger.Closed(ns.ID):
		return notStored("namespace %s keeps no loads while its feed of changes is later than max_lag: use the value, "+
			"and ask again next time", ns.Name)
	case err != nil:
		return notStored("the key %.64q was invalidated since the token was issued, or the token is not its "+
			"present one: use the value, and ask again next time", q.Key)
	}
	return wire.Reply{Version: uint64(t.Version), Event: uint64(event)}
}

// fillClaim answers a SET that names a claim of METAGET in place of a version. It returns
// false if no such claim is out for the key.
func (tokens *Tokens) fillClaim(
	ns *namespaces.Namespace, key kv.Key, q *wire.Request, now kv.Moment,
) (wire.Reply, bool) {
	t, ok := tokens.LeaseTokens.Named(key, q.Compare)
	switch {
	case !ok:
		return wire.Reply{}, false
	case len(q.Value) > tokens.Config.MaxValue:
		return wire.ErrorReply(tooLarge(len(q.Value), tokens.Config.MaxValue)), true
	}
	event, err := tokens.use(ns, key, t, q)
	switch {
	case err == nil:
		return wire.Reply{Version: uint64(t.Version), Event: uint64(event)}, true
	case tokens.Deadlines.over(executeBefore(q)):
		return tokens.Deadlines.tooLate(q), true
	}
	_, seen, _ := tokens.Store.Look(nil, key, segment.Query{Limit: -1, Unread: true}, now)
	return wire.Reply{Status: wire.Exists, Version: uint64(seen.Version)}, true
}

// use uses a token up: it stores the value of a FILL, or of a SET that names a claim. If
// that is a change, event is its version. An error says that the value was not stored.
func (tokens *Tokens) use(
	ns *namespaces.Namespace, key kv.Key, t flight.Token, q *wire.Request,
) (event kv.Version, err error) {
	until := executeBefore(q)
	if tokens.Deadlines.over(until) { // before it uses the token
		return 0, flight.ErrNotStored
	}
	v := flight.ValueOf(bytes.Clone(q.Value), q.Attributes) // the readers that wait share it
	generation := tokens.Store.Generation(key.Hash.Partition())
	err = tokens.LeaseTokens.Fill(key, t, v, func(r flight.Result) (kept bool) {
		ends := func(now kv.Moment) kv.Deadline {
			if q.TTLMS == wire.TTLDefault {
				return ns.Lives(&r, now)
			}
			return ns.Deadline(q.TTLMS, now)
		}
		event, kept = tokens.loads.keep(ns, key, t.OwnershipEpoch, generation, r, until, ends)
		return kept
	})
	return event, err
}
