package namespaces

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// How long a value lives: its TTL, its variation, the refresh before its end, its use after its end,
// and the load barrier after a deletion.

// earlyReach bounds how early a refresh may begin: −ln r exceeds it once in 480 million
// times, so a hit with more time left does not draw r.
const earlyReach = 20

// Loaded notes how long a load took.
func (ns *Namespace) Loaded(took time.Duration) {
	ns.Took.Add(took)
	ns.early.Store(int64(earlyReach * ns.Now().Policy.Beta * float64(ns.Took.Mean())))
}

// Early returns the time before its end from which a hit may refresh a value.
func (ns *Namespace) Early() time.Duration { return time.Duration(ns.early.Load()) }

// RefreshEarly reports whether a hit is to load its value again, which ends at d.
func (ns *Namespace) RefreshEarly(d kv.Deadline, now kv.Moment) bool {
	if d == 0 {
		return false
	}
	left := d.Remaining(now.Boot)
	return left < ns.Early() && ns.Policy.refreshEarly(left, ns.Took.Mean(), rand.Float64())
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

// Waits reports whether a read that misses can wait: for the origin, or for another
// client that loads the key.
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

// Deadline returns the end of a request's TTL, or of the namespace's default TTL.
func (ns *Namespace) Deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.TTL)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}
