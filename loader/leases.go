package loader

import (
	"cmp"
	"container/list"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Token is the right to fill one key, once.
type Token struct {
	Random  uint64 // from the system's source: cannot be guessed
	OwnershipEpoch uint32 // the very holding that issued it, as the caller numbers them
	Stamp          // of its issue
}

// Claim is what Leases is asked on a miss.
type Claim struct {
	Key     kv.Key
	OwnershipEpoch uint32
	// Begin stamps a token. It is called under Leases' lock, at the first issue
	// and at every hand-over, and may not call back.
	Begin func() Stamp
	Time  time.Duration // that its holder has; zero: LeasesConfig.Time
	// Place is the claimant's share of the tokens; nil has no bound. It is called
	// under Leases' lock too.
	Place Place
}

// Place is what a claimant may have of the tokens.
type Place interface {
	// Take takes a token's place, or says why there is none. One that is handed
	// over from another claimant is always there.
	Take(handed bool) error
	Give()
}

// Grant is what a claim got: a token to fill, or somebody else's fill.
type Grant struct {
	Token  Token // Random is zero where Result is what counts
	Result Result
}

// HasToken says whether the grant is a token.
func (g Grant) HasToken() bool { return g.Token.Random != 0 }

// LeasesConfig has the bounds of Leases.
type LeasesConfig struct {
	Time       time.Duration // that a holder has to fill; zero: 10 s. Longer than a load takes, or it is never kept
	MaxLeases  int           // keys with a token out, detached ones included; zero: 65,536
	MaxWaiters int           // callers waiting for fills, all keys together; zero: 65,536
}

// LeasesStats counts since the start, but for the first two.
type LeasesStats struct {
	Out, Waiting int
	Issued       uint64 // tokens
	HandedOver   uint64 // of those, to a waiter whose holder went
	Expired      uint64 // tokens whose holder took too long
	Abandoned    uint64
	Filled       uint64
	NotStored    uint64 // fills refused
	Collapsed    uint64 // claims that waited for another's fill
	Left         uint64 // waiters that gave up
	Detached     uint64
	Shed         uint64
}

// Leases collapses the loads that the apps make themselves: for a key one
// caller gets a token, the others wait for its fill. A holder that goes, fails
// or takes too long loses the token, and the one who has waited longest gets a
// new one at once, with a new version.
type Leases struct {
	cfg LeasesConfig

	joinable atomic.Int64 // leases in byHash; raised before a token is stamped

	mu      sync.Mutex
	closed  bool
	byHash  map[kv.Hash][]*lease // those that newcomers join; at most maxOfHash
	byToken map[uint64]*lease    // all, detached ones too: their waiters still get the fill
	filling sync.WaitGroup       // timers that run and fills under way
	stats   LeasesStats

	most        int                   // there were in byToken since it was made
	inNamespace [kv.MaxNamespaces]int // leases in byHash
}

// lease is a key with a token out. All fields are under Leases.mu.
type lease struct {
	claim    Claim
	key      string
	token    Token
	timer    *time.Timer
	detached bool
	waiters  list.List // of *leaseWaiter; first come, first served
}

// leaseWaiter is answered once, through its channel of one place.
type leaseWaiter struct {
	claim  Claim
	lease  *lease
	place  *list.Element
	answer chan leaseAnswer
}

type leaseAnswer struct {
	grant Grant
	again bool // the lease was detached and its holder is gone: claim anew
	err   error
}

// NewLeases returns a Leases. It starts nothing.
func NewLeases(cfg LeasesConfig) (*Leases, error) {
	if cfg.MaxLeases < 0 || cfg.MaxWaiters < 0 || cfg.Time < 0 {
		return nil, fmt.Errorf("leases: bounds %v, %d and %d: none may be negative", cfg.Time, cfg.MaxLeases, cfg.MaxWaiters)
	}
	cfg.MaxLeases = orInt(cfg.MaxLeases, 65536)
	cfg.MaxWaiters = orInt(cfg.MaxWaiters, 65536)
	if cfg.Time == 0 {
		cfg.Time = 10 * time.Second
	}
	return &Leases{cfg: cfg, byHash: map[kv.Hash][]*lease{}, byToken: map[uint64]*lease{}}, nil
}

// Claim returns a token, or waits until somebody else has filled the key, or it
// is this caller's turn, or ctx is done.
func (l *Leases) Claim(ctx context.Context, c Claim) (Grant, error) {
	for {
		grant, w, err := l.join(c, true)
		if err != nil || w == nil {
			return grant, err
		}
		select {
		case a := <-w.answer:
			l.left(false)
			if a.again {
				continue
			}
			return a.grant, a.err
		case <-ctx.Done():
			l.leave(w)
			return Grant{}, context.Cause(ctx)
		}
	}
}

// Try is Claim for who would rather have a stale value than wait: ok is false
// where another has the token.
func (l *Leases) Try(c Claim) (t Token, ok bool, err error) {
	grant, _, err := l.join(c, false)
	return grant.Token, grant.HasToken(), err
}

// join issues the key's token, or queues a waiter where one is out.
func (l *Leases) join(c Claim, wait bool) (Grant, *leaseWaiter, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return Grant{}, nil, ErrClosed
	}
	at := c.Key.Hash
	for _, e := range l.byHash[at] {
		if e.key != string(c.Key.Bytes) || e.claim.Key.Namespace != c.Key.Namespace || e.claim.OwnershipEpoch != c.OwnershipEpoch {
			continue
		}
		if !wait {
			return Grant{}, nil, nil
		}
		if l.stats.Waiting >= l.cfg.MaxWaiters {
			l.stats.Shed++
			return Grant{}, nil, fmt.Errorf("%w: %d callers wait for fills already", ErrBusy, l.cfg.MaxWaiters)
		}
		c.Key = e.claim.Key // the caller's bytes are borrowed
		w := &leaseWaiter{claim: c, lease: e, answer: make(chan leaseAnswer, 1)}
		w.place = e.waiters.PushBack(w)
		l.stats.Waiting++
		l.stats.Collapsed++
		return Grant{}, w, nil
	}
	if l.stats.Out >= l.cfg.MaxLeases {
		l.stats.Shed++
		return Grant{}, nil, fmt.Errorf("%w: %d keys have a token out already", ErrBusy, l.cfg.MaxLeases)
	}
	if c.Place != nil {
		if err := c.Place.Take(false); err != nil {
			l.stats.Shed++
			return Grant{}, nil, err
		}
	}
	e := &lease{claim: c, key: string(c.Key.Bytes)}
	e.claim.Key.Bytes = []byte(e.key)
	if of := l.byHash[at]; len(of) >= maxOfHash {
		gone := of[max(0, slices.IndexFunc(of, func(e *lease) bool { return e.claim.Key.Namespace == c.Key.Namespace }))]
		l.detachLocked(at, func(e *lease) bool { return e == gone })
	}
	// First: an invalidation that finds no lease is older than this token's stamp.
	l.joinable.Add(1)
	l.inNamespace[c.Key.Namespace]++
	l.byHash[at] = append(l.byHash[at], e)
	l.stats.Out++
	l.issueLocked(e, e.claim)
	return Grant{Token: e.token}, nil, nil
}

// issueLocked gives the lease a new token, and its holder the lease's time.
func (l *Leases) issueLocked(e *lease, c Claim) {
	e.claim = c
	e.token = Token{Random: l.randomLocked(), Stamp: c.Begin(), OwnershipEpoch: c.OwnershipEpoch}
	l.byToken[e.token.Random] = e
	l.most = max(l.most, len(l.byToken))
	l.stats.Issued++
	token := e.token
	l.filling.Add(1) // the timer's run, or its stop
	e.timer = time.AfterFunc(cmp.Or(c.Time, l.cfg.Time), func() {
		defer l.filling.Done()
		l.endToken(token, &l.stats.Expired)
	})
}

// randomLocked is never zero and never one that is out.
func (l *Leases) randomLocked() uint64 {
	for {
		var b [8]byte
		_, _ = rand.Read(b[:]) // never fails: crypto/rand
		r := binary.LittleEndian.Uint64(b[:])
		if _, taken := l.byToken[r]; r != 0 && !taken {
			return r
		}
	}
}

// takeLocked ends a token. It returns its lease, or nil for a token that is not
// the current one.
func (l *Leases) takeLocked(t Token) *lease {
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

// Fill ends the token with a value. It returns nil if keep stored it, else
// ErrNotStored. keep is called at most once, without a lock, and checks for
// itself whether the token's holding lives and its version may still be kept. Those who wait get the value
// in either case, but for a token that is not the current one. While keep runs
// the key still has its lease: who comes then waits for the result.
func (l *Leases) Fill(key kv.Key, t Token, v Value, keep func(Result) bool) error {
	l.mu.Lock()
	e := l.byToken[t.Random]
	if e == nil || e.key != string(key.Bytes) || e.claim.Key.Hash != key.Hash || e.claim.Key.Namespace != key.Namespace || l.takeLocked(t) == nil {
		l.stats.NotStored++
		l.mu.Unlock()
		return ErrNotStored
	}
	r := Result{Value: v, Stamp: t.Stamp, Uncached: e.detached || v.NoStore}
	l.filling.Add(1)
	l.mu.Unlock()
	defer l.filling.Done()

	if !r.Uncached {
		r.Uncached = !keep(r)
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	r.Uncached = r.Uncached || e.detached
	l.dropLocked(e, leaseAnswer{grant: Grant{Result: r}})
	if r.Uncached {
		l.stats.NotStored++
		return ErrNotStored
	}
	l.stats.Filled++
	return nil
}

// Abandon gives a token back: its holder's loader has failed, or its socket is
// closed. The next waiter gets a new one at once. It says whether the token was
// the current one.
func (l *Leases) Abandon(t Token) bool { return l.endToken(t, &l.stats.Abandoned) }

func (l *Leases) endToken(t Token, count *uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.takeLocked(t)
	if e == nil {
		return false
	}
	*count++
	switch {
	case e.detached || l.closed:
		// A token from here would be a second one beside that of those who have
		// come since.
		l.dropLocked(e, leaseAnswer{again: true})
	case e.waiters.Len() == 0:
		l.dropLocked(e, leaseAnswer{})
	default:
		w := e.waiters.Remove(e.waiters.Front()).(*leaseWaiter)
		if w.claim.Place != nil {
			_ = w.claim.Place.Take(true) // it is there
		}
		l.issueLocked(e, w.claim)
		l.stats.HandedOver++
		w.answer <- leaseAnswer{grant: Grant{Token: e.token}}
	}
	return true
}

// dropLocked removes a lease whose token has ended, and answers all who wait.
func (l *Leases) dropLocked(e *lease, a leaseAnswer) {
	at := e.claim.Key.Hash
	before := len(l.byHash[at])
	rest := slices.DeleteFunc(l.byHash[at], func(o *lease) bool { return o == e })
	l.joinable.Add(int64(len(rest) - before))
	l.inNamespace[e.claim.Key.Namespace] += len(rest) - before
	if len(rest) == 0 {
		delete(l.byHash, at)
	} else {
		l.byHash[at] = rest
	}
	l.stats.Out--
	for p := e.waiters.Front(); p != nil; p = p.Next() {
		p.Value.(*leaseWaiter).answer <- a // has a place, is sent to once
	}
	e.waiters.Init()
	if l.most > manyLeases && len(l.byToken) == 0 && len(l.byHash) == 0 { // maps do not shrink
		l.byHash, l.byToken, l.most = map[kv.Hash][]*lease{}, map[uint64]*lease{}, 0
	}
}

// manyLeases are worth new maps once all of them have ended.
const manyLeases = 1024

// leave ends a wait whose caller has given up. A token that it was handed at
// the same moment goes on to the next.
func (l *Leases) leave(w *leaseWaiter) {
	l.mu.Lock()
	w.lease.waiters.Remove(w.place) // nothing, where it has been answered
	l.mu.Unlock()
	l.left(true)
	select {
	case a := <-w.answer:
		if a.grant.HasToken() {
			l.Abandon(a.grant.Token)
		}
	default:
	}
}

func (l *Leases) left(gaveUp bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stats.Waiting--
	if gaveUp {
		l.stats.Left++
	}
}

// Detach is an invalidation, after it was stamped: the token's fill will not be
// stored, who waits gets its value, marked, and who comes later gets a token of
// its own. It costs next to nothing while no token is out.
func (l *Leases) Detach(h kv.Hash) {
	if l.joinable.Load() == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.detachLocked(h, func(*lease) bool { return true })
}

// DetachIf does the same for all keys that match: a flush, the end of a
// holding.
func (l *Leases) DetachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for h := range l.byHash {
		l.detachLocked(h, func(e *lease) bool { return match(e.claim.Key.Namespace, h) })
	}
}

func (l *Leases) detachLocked(at kv.Hash, match func(*lease) bool) {
	before := len(l.byHash[at])
	rest := slices.DeleteFunc(l.byHash[at], func(e *lease) bool {
		if !match(e) {
			return false
		}
		e.detached = true
		l.stats.Detached++
		l.inNamespace[e.claim.Key.Namespace]--
		return true
	})
	l.joinable.Add(int64(len(rest) - before))
	if len(rest) == 0 {
		delete(l.byHash, at)
		return
	}
	l.byHash[at] = rest
}

// InUse says whether a token of a namespace is out that was not detached.
func (l *Leases) InUse(ns kv.NamespaceID) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inNamespace[ns] > 0
}

// Stats counts.
func (l *Leases) Stats() LeasesStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close ends all tokens, sends those who wait away with ErrClosed, and waits
// for fills under way. It is idempotent.
func (l *Leases) Close() {
	l.mu.Lock()
	l.closed = true
	for _, e := range l.byToken {
		l.takeLocked(e.token)
		l.dropLocked(e, leaseAnswer{err: ErrClosed})
	}
	l.mu.Unlock()
	l.filling.Wait()
}
