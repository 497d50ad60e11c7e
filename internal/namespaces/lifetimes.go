package namespaces

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// BarrierOf returns how long the load barrier of a deletion lasts: the request's value,
// if that is less than the namespace's replica_lag. That is the present one: see Barred.
func (ns *Namespace) BarrierOf(q *wire.Request) time.Duration {
	lag := ns.Now().ReplicaLag
	if q.ReplicaLagMS == 0 {
		return lag
	}
	return min(time.Duration(q.ReplicaLagMS)*time.Millisecond, lag)
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
	return kv.After(now.Boot, loader.Jitter(cmp.Or(r.TTL, ns.TTL), ns.jitter, rand.Float64()))
}

// Deadline returns the end of a request's TTL, or of the namespace's default TTL.
func (ns *Namespace) Deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.TTL)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}
