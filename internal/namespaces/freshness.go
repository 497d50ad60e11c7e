package namespaces

import (
	"cmp"
	"math"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
	"github.com/cachesidecar/cachesidecar/loader"
)

// How long a value lives: its TTL, its variation, the refresh before its end, its use after its end
// (Policy), and the load barrier after a deletion.

// earlyReach bounds how early a refresh may begin: −ln r exceeds it once in 480 million
// times, so a hit with more time left does not draw r.
const earlyReach = 20

// Loaded notes how long a load took.
func (ns *Namespace) Loaded(took time.Duration) {
	ns.Took.Add(took)
	ns.refreshWindow.Store(int64(earlyReach * ns.Now().Policy.Beta * float64(ns.Took.Mean())))
}

// RefreshWindow returns the time before its end from which a hit may refresh a value.
func (ns *Namespace) RefreshWindow() time.Duration { return time.Duration(ns.refreshWindow.Load()) }

// RefreshEarly reports whether a hit is to load its value again, which ends at d.
func (ns *Namespace) RefreshEarly(d kv.Deadline, now kv.Moment) bool {
	if d == 0 {
		return false
	}
	left := d.Remaining(now.Boot)
	return left < ns.RefreshWindow() && ns.Policy.drawEarly(left, ns.Took.Mean(), rand.Float64())
}

// drawEarly draws whether a read of a live value should refresh it in the background, before the value ends and all
// its readers miss at once. It is XFetch (Vattani, Chierichetti, Lowenstein: Optimal Probabilistic Cache Stampede
// Prevention, VLDB 2015): it compares left, the remaining time, with took·beta·(−ln r), r uniform in (0, 1]. A value
// that is read often is refreshed about one load time before its end, by few readers. A value that is read rarely is
// almost never refreshed early.
func (policy Policy) drawEarly(left, took time.Duration, random float64) bool {
	if policy.Beta <= 0 || took <= 0 {
		return false
	}
	r := 1 - random // random is in [0, 1), and ln 0 is undefined
	return float64(took)*policy.Beta*-math.Log(r) >= float64(left)
}

// Stale reports whether a request that accepts a stale value gets the old one at once, while one refresh runs in the
// background. A value kept by a soft deletion is kept only for this purpose, so it is used for as long as it exists.
func (policy Policy) Stale(old *segment.Stale) bool {
	return old.Invalidated || old.Ended < policy.StaleWhileRevalidate
}

// StaleIfFailed reports whether such a request gets the old value after its load ended with err. ErrAbsent is not a
// failure but the newest state of the origin, as is every other answer of the origin.
func (policy Policy) StaleIfFailed(old *segment.Stale, err error) bool {
	return !loader.Answered(err) && (old.Invalidated || old.Ended < policy.StaleIfError)
}

// BarrierOf returns how long the load barrier of a deletion lasts: the request's value,
// if that is less than the namespace's replica_lag, which is lag.
func (ns *Namespace) BarrierOf(q *wire.Request) (hold, lag time.Duration) {
	lag = ns.Now().ReplicaLag
	if q.ReplicaLagMS == 0 {
		return lag, lag
	}
	return min(time.Duration(q.ReplicaLagMS)*time.Millisecond, lag), lag
}

// Waits reports whether a read that misses can wait: for the origin, or for another client that loads the key.
func (ns *Namespace) Waits(q *wire.Request) bool {
	return q.Op == wire.OpLease || ns.Origin != nil && !q.Has(wire.NoLoad)
}

// Lives returns when a loaded value ends. The ends vary, so that values that were loaded
// together do not all end at once.
func (ns *Namespace) Lives(r *flight.Result, now kv.Moment) kv.Deadline {
	if r.Absent {
		return kv.After(now.Boot, ns.Policy.NegativeTTL)
	}
	return kv.After(now.Boot, jitter(cmp.Or(r.TTL, ns.TTL), ns.jitter, rand.Float64()))
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

// Deadline returns the end of a request's TTL, or of the namespace's default TTL.
func (ns *Namespace) Deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.TTL)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}
