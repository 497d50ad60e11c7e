package flight

import (
	"cmp"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

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
