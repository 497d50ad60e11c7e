package loader

import (
	"math"
	"time"
)

// Policy says how long values of a namespace live, and what becomes of one that
// has had its time. Everything here is a pure function.
type Policy struct {
	NegativeTTL          time.Duration // of "the origin has none"; zero: it is not kept
	StaleWhileRevalidate time.Duration // after the end: answered at once, refreshed behind; zero: never
	StaleIfError         time.Duration // after the end: answered where the origin fails; zero: never
	Beta                 float64       // of RefreshEarly; zero: never early, 1: as the paper
}

// Jitter varies a TTL by up to share either way, so that values that were loaded
// together, at a start say, do not all end together; share is below 1, random
// uniform in [0, 1). Zero, no expiry, stays; nothing else becomes zero.
func Jitter(ttl time.Duration, share, random float64) time.Duration {
	if ttl <= 0 {
		return ttl
	}
	jittered := float64(ttl) * (1 + share*(2*random-1))
	if jittered >= math.MaxInt64 {
		return ttl
	}
	return max(1, time.Duration(jittered))
}

// RefreshEarly says whether a read of a live value should refresh it in the
// background, before it ends and all its readers miss at once. It is XFetch
// (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
// Prevention, VLDB 2015): the time left is compared with took·beta·(−ln r), r
// uniform in (0, 1]. So what is read often is refreshed about one load's time
// before its end, by few, and what is read seldom hardly ever.
func (p Policy) RefreshEarly(left, took time.Duration, random float64) bool {
	if p.Beta <= 0 || took <= 0 {
		return false
	}
	r := 1 - random // of [0, 1), and ln 0 is none
	return float64(took)*p.Beta*-math.Log(r) >= float64(left)
}

// Old is a value that has had its time.
type Old struct {
	Exists bool
	// Ended is how long ago it expired, or was invalidated.
	Ended time.Duration
	// Invalidated says that a change of it was announced (a soft delete): the
	// value is wrong for sure, where an expired one may only be old.
	Invalidated bool
}

// Stale says what a request that takes a stale value is told before the origin
// is asked: whether it gets the old one now, while one refresh runs behind.
// What a soft deletion has left is there for just that, for as long as it is
// kept at all.
func (p Policy) Stale(o Old) bool {
	return o.Exists && (o.Invalidated || o.Ended < p.StaleWhileRevalidate)
}

// StaleIfFailed says whether such a request gets the old value after its load
// ended with err. "There is none" is no failure but the newest truth, and so is
// everything else that the origin has answered.
func (p Policy) StaleIfFailed(o Old, err error) bool {
	return o.Exists && !Answered(err) && (o.Invalidated || o.Ended < p.StaleIfError)
}
