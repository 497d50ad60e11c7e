package namespaces

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/cachesidecar/cachesidecar/internal/flight"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/places"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Namespace is a name with a slot.
type Namespace struct {
	Name       string
	ID         kv.NamespaceID
	Seed       uint64
	Line       uint16         // in the access rules
	TTL        time.Duration  // of writes that bring none; zero is no expiry
	ReplicaLag time.Duration  // length of a load barrier, at most; zero: none
	configured bool           // keeps its slot for good
	member     *places.Member // the connection that has brought the name; nil is this process

	Policy       loader.Policy
	jitter       float64       // the share by which TTLs of loaded values vary
	LeaseTime    time.Duration // that an app may take to load
	Origin       *Origin       // nil: the apps load
	Loads        *flight.Loads // from the origin
	Early        atomic.Int64  // ns before its end from which a hit may refresh a value
	Took         Recent        // the time of loads
	LoadTime     prometheus.Histogram
	WithoutOwner atomic.Int64  // loads without an owner
	KeyFilter    *KeyFilter    // nil: any key may exist
	WriteThrough *WriteThrough // nil: the origin is not written to
	Warming      *Warming      // nil: no keys are loaded at the start

	Counts [wire.OpCount][Outcomes]atomic.Int64

	// A namespace that is not configured loses its slot when it is empty and another name
	// needs one. A request has use read-locked while it touches the store, so that it
	// does not go on under a slot that another name has taken.
	use     sync.RWMutex
	retired bool
}

// Key returns the key with the given bytes in the namespace. It does not copy them.
func (ns *Namespace) Key(b []byte) kv.Key {
	return kv.Key{Hash: kv.HashKey(ns.Seed, b), Namespace: ns.ID, Bytes: b}
}
