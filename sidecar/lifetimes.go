package sidecar

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// holdOf is how long a deletion holds its key: what it asks for, if that is less
// than its namespace's hold.
func (ns *namespace) holdOf(q *wire.Request) time.Duration {
	if q.HoldMS == 0 {
		return ns.hold
	}
	return min(time.Duration(q.HoldMS)*time.Millisecond, ns.hold)
}

// A key that is missing in a namespace with an origin is loaded by the host that
// holds it, once for all who ask, on whatever host. What a load brings has the
// version of the moment at which it began: what changes meanwhile keeps it out
// of the store, by the same question as every copy, and out of the table of
// loads, so that who asks after the change starts anew.
//
//	door        asks, in the store's critical section
//	load, FILL  the holding it began in lives, Admit, no hold since it began

// waits says whether a read that misses has somebody to wait for: the origin, or
// who else loads the key.
func (ns *namespace) waits(q *wire.Request) bool {
	return q.Op == wire.OpLease || ns.origin != nil && !q.Has(wire.NoLoad)
}

// lives is when what was loaded ends: not for all that were loaded together at
// once.
func (ns *namespace) lives(r *loader.Result, now kv.Moment) kv.Deadline {
	if r.Absent {
		return kv.After(now.Boot, ns.policy.NegativeTTL)
	}
	return kv.After(now.Boot, loader.Jitter(cmp.Or(r.TTL, ns.ttl), ns.jitter, rand.Float64()))
}

// deadline is the end of a TTL that a request brings, or its namespace's own.
func (ns *namespace) deadline(ttlMS int64, now kv.Moment) kv.Deadline {
	if ttlMS == wire.TTLDefault {
		return kv.After(now.Boot, ns.ttl)
	}
	return kv.After(now.Boot, time.Duration(ttlMS)*time.Millisecond)
}
