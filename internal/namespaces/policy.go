package namespaces

import (
	"math"
	"time"

	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Policy determines how long the values of a namespace live, and how they are used after
// their end.
type Policy struct {
	NegativeTTL time.Duration // of "the origin has no such key"; zero: not kept
	// Time after the end in which a value is answered at once and refreshed in the
	// background; zero: none.
	StaleWhileRevalidate time.Duration
	// Time after the end in which a value is answered if the origin fails; zero: none.
	StaleIfError time.Duration
	Beta         float64 // of refreshEarly; zero: never early; 1: as in the paper
}

// jitter varies a TTL by up to share in both directions, so that values loaded together,
// for example at a start, do not end together. share is below 1; random is uniform in
// [0, 1). A TTL of zero, which means no expiry, stays zero. No other TTL becomes zero.
func jitter(ttl time.Duration, share, random float64) time.Duration {
	if ttl <= 0 {
		return ttl
	}
	jittered := float64(ttl) * (1 + share*(2*random-1))
	if jittered >= math.MaxInt64 {
		return ttl
	}
	return max(1, time.Duration(jittered))
}

// refreshEarly reports whether a read of a live value should refresh it in the
// background, before the value ends and all its readers miss at once. It is XFetch
// (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede Prevention,
// VLDB 2015): it compares left, the remaining time, with took·beta·(−ln r), r uniform in
// (0, 1]. A value that is read often is refreshed about one load time before its end, by
// few readers. A value that is read rarely is almost never refreshed early.
func (policy Policy) refreshEarly(left, took time.Duration, random float64) bool {
	if policy.Beta <= 0 || took <= 0 {
		return false
	}
	r := 1 - random // random is in [0, 1), and ln 0 is undefined
	return float64(took)*policy.Beta*-math.Log(r) >= float64(left)
}

// Stale reports whether a request that accepts a stale value gets the old one at once,
// while one refresh runs in the background. A value kept by a soft deletion is kept only
// for this purpose, so it is used for as long as it exists.
func (policy Policy) Stale(old *segment.Stale) bool {
	return old.Invalidated || old.Ended < policy.StaleWhileRevalidate
}

// StaleIfFailed reports whether such a request gets the old value after its load ended
// with err. ErrAbsent is not a failure but the newest state of the origin, as is every
// other answer of the origin.
func (policy Policy) StaleIfFailed(old *segment.Stale, err error) bool {
	return !loader.Answered(err) && (old.Invalidated || old.Ended < policy.StaleIfError)
}
