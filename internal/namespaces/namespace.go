package namespaces

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Namespace is a name with a slot, and its settings. It does not change: a reload makes
// another Namespace of the same slot. A request goes on with the one that it has looked
// up.
type Namespace struct {
	*slot
	shared
	configured bool          // keeps its slot
	settings   Settings      // from which the fields below are made
	TTL        time.Duration // of writes that bring none; zero is no expiry
	ReplicaLag time.Duration // length of a load barrier, at most; zero: none

	Keys         *loader.Keys // that apps may write and load
	Policy       Policy
	jitter       float64           // the share by which TTLs of loaded values vary
	LeaseTime    time.Duration     // that an app may take to load
	Origin       *origin.Origin    // nil: the apps load
	KeyFilter    *keyfilter.Filter // nil: any key may exist
	WriteThrough *WriteThrough     // nil: the origin is not written to
	warming      *Warming          // nil: no keys are loaded at the start
	auditChance  uint64            // of a hit to be compared with the origin, of 2^32
}

// shared is the same in all Namespaces of a slot, from the first that needs it on.
type shared struct {
	Loads    *flight.Loads       // from the origin
	calls    *loader.GuardCounts // of all its origins so far
	LoadTime prometheus.Histogram
	through  *WriteThrough // WriteThrough, also while write-through is off
}

// slot is what the Namespaces of one name have in common, whatever their settings.
type slot struct {
	Name string
	ID   kv.NamespaceID
	Seed uint64
	now  atomic.Pointer[Namespace] // the one with the present settings

	refreshWindow atomic.Int64 // see RefreshWindow
	Took          Recent       // the time of loads
	WithoutOwner  atomic.Int64 // loads without an owner
	audit         audit

	Counts [wire.OpCount][Outcomes]atomic.Int64

	// Under Table.mu.
	by       *quota.Account // the connection that has brought the name; nil is this process
	promised bool           // a Plan configures the name
	removed  time.Duration  // boot clock: when the name was configured last; zero: never

	// A namespace that is not configured loses its slot when it is empty and another name
	// needs one. A request has use read-locked while it touches the store, so that it
	// does not go on under a slot that another name has taken.
	use     sync.RWMutex
	retired bool
}

// Now returns the Namespace with the present settings of the name.
func (ns *Namespace) Now() *Namespace { return ns.now.Load() }

// Key returns the key with the given bytes in the namespace. It does not copy them.
func (ns *Namespace) Key(b []byte) kv.Key {
	return kv.Key{Hash: ns.Hash(b), Namespace: ns.ID, Bytes: b}
}

// Hash returns the hash of the key with the given bytes.
func (ns *Namespace) Hash(b []byte) kv.Hash { return kv.HashKey(ns.Seed, b) }
