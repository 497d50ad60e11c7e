package flight

import (
	"bytes"
	"cmp"
	"container/list"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Token is the permission to fill one key, once.
type Token struct {
	Random         uint64 // from the system's random source, so it cannot be guessed
	OwnershipEpoch uint32 // in which it was issued, numbered by the caller
	Stamp                 // of the moment of issue
}

// Claim is the request to Leases after a miss.
type Claim struct {
	Key            kv.Key
	OwnershipEpoch uint32
	// Begin stamps a token. It is called with Leases' lock held, at the first issue and
	// at every hand-over, and by Try to tell the time. It must not call Leases.
	Begin func() Stamp
	Time  time.Duration // for the holder to fill; zero: leaseTime
	// Usual is the time after which the token ends if others want its place; zero: it does not. It ends before that
	// if its place yields to theirs.
	Usual time.Duration
	// Place limits the claimant's share of the tokens; nil: no limit. Its methods are
	// also called with Leases' lock held.
	Place Place
	// Ends says that an invalidation ends the token, if nobody waits for its fill: its holder
	// mostly stores without it, and would keep the place until its time is over.
	Ends bool
}

// Place limits how many tokens a claimant may have.
type Place interface {
	// Take takes the place of one token, or returns an error that says why there is
	// none. If handed is true, the token comes from another claimant and Take must
	// succeed.
	Take(handed bool) error
	Give()
	// YieldsTo says that the claimant has gone, and that another one may have its share of the places.
	YieldsTo(other Place) bool
}

// Grant is the result of a claim: a token to fill, or the fill of another caller.
type Grant struct {
	Token  Token // Random is zero if the grant is a Result
	Result Result
}

// HasToken reports whether the grant is a token.
func (g Grant) HasToken() bool { return g.Token.Random != 0 }

// leaseTime is the time for a holder to fill whose Claim names none. It must exceed the duration of a load, or the fill
// is not kept.
const leaseTime = 10 * time.Second

// MaxLeases bounds the keys with a token, detached ones included.
const MaxLeases = 1 << 16

// Leases collapses the loads that apps make themselves. For each key one caller gets a
// token, and the others wait for its fill. A token holder that disconnects, fails or
// takes too long loses the token. The caller that has waited longest then gets a new
// token at once, with a new version.
type Leases struct {
	filling sync.WaitGroup // running timers, fills in progress, and what tells waiters
	table   Table[*lease]  // its lock also guards the fields below

	closed      bool
	byToken     map[uint64]*lease // all leases; waiters of detached ones get the fill too
	told        []told            // in the present critical section: see tellLocked
	most        int               // maximum of len(byToken) since the map was made
	stats       cachesidecar.TokenStats
	inNamespace [kv.MaxNamespaces]int // leases in the table
}

// lease is a key with a token issued. The table's lock guards all fields.
type lease struct {
	claim    Claim // its key has the lease's own bytes
	token    Token
	timer    *time.Timer
	detached bool
	waiters  list.List // of *LeaseWaiter; first come, first served
}

// FlightKey returns the key that is to be filled.
func (e *lease) FlightKey() kv.Key { return e.claim.Key }

// NewLeases returns a Leases. It starts nothing.
func NewLeases() *Leases {
	l := &Leases{byToken: map[uint64]*lease{}}
	l.table.Detached = func(e *lease) {
		e.detached = true
		l.inNamespace[e.claim.Key.Namespace]--
		if e.claim.Ends && e.waiters.Len() == 0 && l.takeLeaseLocked(e.token) != nil {
			l.stats.Abandoned++
			l.stats.Out--
		}
	}
	return l
}

// findLocked returns the lease of a key whose token is out, or nil.
func (l *Leases) findLocked(c *Claim) (*lease, error) {
	if l.closed {
		return nil, ErrClosed
	}
	e, _ := l.table.Find(c.Key, func(e *lease) bool { return e.claim.OwnershipEpoch == c.OwnershipEpoch })
	return e, nil
}

// addLocked issues the first token of a key.
func (l *Leases) addLocked(c Claim) (Token, error) {
	if l.stats.Out >= MaxLeases && !l.endOldLocked(c) {
		l.stats.Shed++
		return Token{}, fmt.Errorf("%w: %d keys have a token out already", loader.ErrBusy, MaxLeases)
	}
	if c.Place != nil {
		err := c.Place.Take(false)
		if err != nil && l.endOldLocked(c) {
			err = c.Place.Take(false)
		}
		if err != nil {
			l.stats.Shed++
			return Token{}, err
		}
	}
	e := l.table.Add(c.Key, func() *lease {
		c.Key.Bytes = bytes.Clone(c.Key.Bytes) // the caller may reuse its bytes
		e := &lease{}
		l.issueLocked(e, c)
		return e
	})
	l.inNamespace[c.Key.Namespace]++
	l.stats.Out++
	return e.token, nil
}

// oldLooks bounds how many tokens are looked at for one that has lasted for its usual time. If there is a lack of
// places because of such tokens, they are many.
const oldLooks = 64

// endOldLocked ends some tokens whose place c may have, and reports whether there were any.
func (l *Leases) endOldLocked(c Claim) (ended bool) {
	now, looks := c.Begin().At, 0
	for _, e := range l.byToken { // begins anywhere
		if looks++; looks > oldLooks {
			break
		}
		u := e.claim.Usual
		if u == 0 || e.waiters.Len() > 0 {
			continue
		}
		if now-e.token.At >= u || e.claim.Place != nil && e.claim.Place.YieldsTo(c.Place) {
			ended = true
			l.stats.Expired++
			l.takeLeaseLocked(e.token)
			l.dropLocked(e, Grant{}, nil)
		}
	}
	return ended
}

// issueLocked gives the lease a new token and starts its timer.
func (l *Leases) issueLocked(e *lease, c Claim) {
	e.claim = c
	e.token = Token{Random: l.randomLocked(), Stamp: c.Begin(), OwnershipEpoch: c.OwnershipEpoch}
	l.byToken[e.token.Random] = e
	l.most = max(l.most, len(l.byToken))
	l.stats.Issued++
	token := e.token
	l.filling.Add(1) // for the timer's run, or its stop
	e.timer = time.AfterFunc(cmp.Or(c.Time, leaseTime), func() {
		defer l.filling.Done()
		l.endToken(token, &l.stats.Expired)
	})
}

// randomLocked returns a number that is neither zero nor in use.
func (l *Leases) randomLocked() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // crypto/rand never fails
		r := binary.LittleEndian.Uint64(b[:])
		if _, taken := l.byToken[r]; r != 0 && !taken {
			return r
		}
	}
}

// takeLeaseLocked ends a token and returns its lease. If the token is not the current one, it
// returns nil.
func (l *Leases) takeLeaseLocked(t Token) *lease {
	e := l.byToken[t.Random]
	if e == nil || e.token != t {
		return nil
	}
	delete(l.byToken, t.Random)
	if e.timer.Stop() {
		l.filling.Done()
	}
	e.token = Token{}
	if e.claim.Place != nil {
		e.claim.Place.Give()
	}
	return e
}

// Fill ends the token with a value. It returns nil if keep stored the value, otherwise
// ErrNotStored. keep is called at most once, without a lock. keep must check itself
// whether the ownership epoch of the token is still current, and whether its version may
// still be kept. The waiters get the value in both cases, unless the token is not the
// current one. While keep runs, the key still has its lease: a new caller waits for the
// result.
func (l *Leases) Fill(key kv.Key, t Token, v loader.Value, keep func(Result) bool) error {
	l.table.Lock()
	e := l.byToken[t.Random]
	if e == nil || !sameKey(e.claim.Key, key) || l.takeLeaseLocked(t) == nil {
		l.stats.NotStored++
		l.table.Unlock()
		return ErrNotStored
	}
	detached := e.detached
	l.filling.Add(1)
	l.table.Unlock()
	defer l.filling.Done()

	r := Result{Value: v, Stamp: t.Stamp}
	r.offer(detached, keep)

	l.table.Lock()
	defer l.table.Unlock()
	// A value that replaces another one is a change itself, and detaches its own lease.
	stored := !r.NoStore
	r.NoStore = r.NoStore || e.detached
	l.dropLocked(e, Grant{Result: r}, nil)
	if !stored {
		l.stats.NotStored++
		return ErrNotStored
	}
	l.stats.Filled++
	return nil
}

// Abandon gives a token back, because the holder's load has failed or its connection is
// closed. The next waiter gets a new token at once. Abandon reports whether the token
// was the current one.
func (l *Leases) Abandon(t Token) bool { return l.endToken(t, &l.stats.Abandoned) }

func (l *Leases) endToken(t Token, count *int64) bool {
	l.table.Lock()
	defer l.table.Unlock()
	e := l.takeLeaseLocked(t)
	if e == nil {
		return false
	}
	*count++
	switch {
	case e.detached || l.closed:
		// A token issued here would be a second one: callers that came after the detach
		// have one already.
		l.dropLocked(e, Grant{}, ErrAgain)
	case e.waiters.Len() == 0:
		l.dropLocked(e, Grant{}, nil)
	default:
		w := e.waiters.Front().Value.(*LeaseWaiter)
		if w.claim.Place != nil {
			_ = w.claim.Place.Take(true) // succeeds: the token is handed over
		}
		l.issueLocked(e, w.claim)
		l.stats.HandedOver++
		l.answerLocked(w, Grant{Token: e.token}, nil)
		l.tellLocked()
	}
	return true
}

// dropLocked removes a lease whose token has ended, and answers all its waiters.
func (l *Leases) dropLocked(e *lease, g Grant, err error) {
	if !e.detached {
		l.table.Remove(e)
		l.inNamespace[e.claim.Key.Namespace]--
	}
	l.stats.Out--
	l.answerAllLocked(e, g, err)
	l.tellLocked()
	if l.most > manyFlights && len(l.byToken) == 0 { // maps do not shrink
		l.byToken, l.most = map[uint64]*lease{}, 0
	}
}

// Invalidate announces an invalidation of a hash, after the invalidation was stamped. The
// fill of the token will not be stored. The waiters get its value, marked NoStore.
// Later callers get a token of their own. While no token is issued, Invalidate costs almost
// nothing.
func (l *Leases) Invalidate(h kv.Hash) { l.table.Invalidate(h) }

// InvalidateIf detaches all keys for which match returns true: for a flush, or the end of an
// ownership.
func (l *Leases) InvalidateIf(match func(kv.NamespaceID, kv.Hash) bool) { l.table.InvalidateIf(match) }

// End answers the callers that wait for fills of keys for which match returns true with
// ErrAgain: their ownership has ended, and a fill goes to the next owner. The tokens stay
// until they are given back or their time is over. It visits every lease.
func (l *Leases) End(match func(kv.Hash) bool) {
	l.table.Lock()
	defer l.table.Unlock()
	for _, e := range l.byToken {
		if match(e.claim.Key.Hash) {
			l.answerAllLocked(e, Grant{}, ErrAgain)
		}
	}
	l.tellLocked()
}

// InUse reports whether the namespace has an issued token that is not detached.
func (l *Leases) InUse(ns kv.NamespaceID) bool {
	l.table.Lock()
	defer l.table.Unlock()
	return l.inNamespace[ns] > 0
}

// Stats returns the counts.
func (l *Leases) Stats() cachesidecar.TokenStats {
	l.table.Lock()
	defer l.table.Unlock()
	return l.stats
}

// Close ends all tokens, answers all waiters with ErrClosed, and waits for fills in
// progress. It is idempotent.
func (l *Leases) Close() {
	l.table.Lock()
	l.closed = true
	for _, e := range l.byToken {
		l.takeLeaseLocked(e.token)
		l.dropLocked(e, Grant{}, ErrClosed)
	}
	l.table.Unlock()
	l.filling.Wait()
}

// Out is the token of a key that is out.
type Out struct {
	Token               // zero while its value is being stored
	Won   bool          // it was issued to this caller
	Left  time.Duration // until it ends
}

// Try is Claim for a caller that does not wait: it gets the token, or is told which token is
// out.
func (l *Leases) Try(c Claim) (Out, error) {
	l.table.Lock()
	defer l.table.Unlock()
	e, err := l.findLocked(&c)
	if err != nil {
		return Out{}, err
	}
	if e != nil {
		ends := e.token.At + cmp.Or(e.claim.Time, leaseTime)
		return Out{Token: e.token, Left: ends - c.Begin().At}, nil
	}
	t, err := l.addLocked(c)
	return Out{Token: t, Won: err == nil, Left: cmp.Or(c.Time, leaseTime)}, err
}

// Named returns the token with a random number, if it is out for the key.
func (l *Leases) Named(key kv.Key, random uint64) (Token, bool) {
	l.table.Lock()
	defer l.table.Unlock()
	e := l.byToken[random]
	if random == 0 || e == nil || !sameKey(e.claim.Key, key) {
		return Token{}, false
	}
	return e.token, true
}

// IsIssued reports whether a token is out for a key.
func (l *Leases) IsIssued(key kv.Key) bool {
	l.table.Lock()
	defer l.table.Unlock()
	_, ok := l.table.Find(key, func(*lease) bool { return true })
	return ok
}
