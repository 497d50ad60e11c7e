package namespaces

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// BarrierOf is how long a deletion holds its key: what it asks for, if that is less
// than its namespace's hold.
func (ns *Namespace) BarrierOf(q *wire.Request) time.Duration {
	if q.ReplicaLagMS == 0 {
		return ns.ReplicaLag
	}
	return min(time.Duration(q.ReplicaLagMS)*time.Millisecond, ns.ReplicaLag)
}

// Waits says whether a read that misses has somebody to wait for: the origin, or
// who else loads the key.
func (ns *Namespace) Waits(q *wire.Request) bool {
	return q.Op == wire.OpLease || ns.Origin != nil && !q.Has(wire.NoLoad)
}

// Lives is when what was loaded ends: not for all that were loaded together at
// once.
func (ns *Namespace) Lives(r *loader.Result, now kv.Moment) kv.Deadline {
	if r.Absent {
		return kv.After(now.Boot, ns.Policy.NegativeTTL)
	}
	return kv.After(now.Boot, loader.Jitter(cmp.Or(r.TTL, ns.TTL), ns.jitter, rand.Float64()))
}

// Deadline is the end of a TTL that a request brings, or its namespace's own.
func (ns *Namespace) Deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.TTL)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}
