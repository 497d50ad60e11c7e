package namespaces

import (
	"log/slog"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Config describes the namespaces of a host.
type Config struct {
	Seed     uint64        // of the cluster
	Max      int           // names at once
	Bound    time.Duration // of staleness, the cluster's
	MaxValue int           // bytes
	Clock    kv.Clock
	Log      *slog.Logger
	Node     string // this host

	// StrictOrigins says that origins must answer before a reload uses them.
	StrictOrigins bool

	// Kept are the slots of names whose entries the store has taken over from an earlier process.
	Kept map[string]kv.NamespaceID

	Configured map[string]Settings
	Others     Settings // of names that are not configured
}

// Settings is the settings of one namespace, with every default filled in.
type Settings struct {
	TTL        time.Duration // of writes and loads that bring none; zero is no expiry
	StaleLimit time.Duration // how long a soft deletion leaves the old value
	ReplicaLag time.Duration // how long a load barrier lasts; zero: none
	LeaseTime  time.Duration // that an app may take to load
	Bound      time.Duration // of staleness; zero: the cluster's
	Quota      int64         // bytes; zero is none
	NotShared  bool          // not in the memory that apps share
	Policy     Policy
	Jitter     float64 // the share by which TTLs of loaded values vary

	origin.Settings // without an origin the fields below have no effect
	Warm            *WarmSettings
	Audit           float64 // the share of hits that is compared with the origin
}

// WarmSettings is the settings for the keys that are loaded at the start.
type WarmSettings struct {
	Rate float64 // loads per second; zero: 1,000
	Keys int     // of this host, at most; zero: 1,000,000
	loader.List
}

// Policy determines how long the values of a namespace live, and how they are used after their end.
type Policy struct {
	NegativeTTL time.Duration // of "the origin has no such key"; zero: not kept
	// Time after the end in which a value is answered at once and refreshed in the background; zero: none.
	StaleWhileRevalidate time.Duration
	// Time after the end in which a value is answered if the origin fails; zero: none.
	StaleIfError time.Duration
	Beta         float64 // of drawEarly; zero: never early; 1: as in the paper
}
