package sidecar

import (
	"cmp"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/origin"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Namespace has the settings of one namespace.
type Namespace struct {
	// DefaultTTL is the TTL of writes and loads without a TTL of their own. Default: 1h.
	// Bounds: 0s (no expiry) to 8760h.
	DefaultTTL *time.Duration `yaml:"default_ttl" answers:"yes"`
	// MaxStaleness bounds how long after a change an outdated value of this namespace may be
	// read. It must be the same on all hosts. Default: the sidecar's. Bounds: 200ms to the
	// sidecar's.
	MaxStaleness time.Duration `yaml:"max_staleness" reload:"restart" answers:"yes"`
	// StaleLimit is how long a soft deletion keeps the old value for readers that accept a
	// stale value. It also bounds StaleWhileRevalidate and StaleIfError. With zero, soft
	// deletions are hard deletions. Default: 1m. Bounds: 0s (no stale values) to 8760h.
	StaleLimit *time.Duration `yaml:"stale_limit" answers:"yes"`
	// Quota bounds the bytes of the namespace on this host, headers included. A new key
	// evicts the oldest keys. Default: none. Bounds: 64KiB to L2Size.
	Quota Size `yaml:"quota"`
	// Shared says whether apps may read hot values from shared memory (shared_size). Default:
	// true.
	Shared *bool `yaml:"shared"`

	// KeyPattern is what a whole key must match to be written or loaded, by apps or from the origin. Form:
	// regular expression (RE2). Default: any key. Bounds: up to 1024 bytes.
	KeyPattern string `yaml:"key_pattern" answers:"yes"`

	// Origin is where missing values are loaded from: the Config of one of the packages
	// below loader, or a loader.Custom. Default: the apps load.
	Origin loader.OriginConfig `yaml:"-" setting:"origin" answers:"yes"`

	// MaxKey bounds the length of keys that are written or loaded, in bytes. Default:
	// 1024B. Bounds: 1B to 1024B.
	MaxKey Size `yaml:"max_key" answers:"yes" default:"1KiB"`
	// NegativeTTL is how long the answer of the origin that it has no such key is kept.
	// Default: 5s. Bounds: 0s (not kept) to 8760h.
	NegativeTTL *time.Duration `yaml:"negative_ttl" answers:"yes"`
	// TTLJitter is the share by which the TTL of loaded values varies in both directions.
	// Form: share. Default: 0.1. Bounds: 0 to 0.5.
	TTLJitter *float64 `yaml:"ttl_jitter" answers:"yes"`
	// StaleWhileRevalidate is how long after its end a value still goes to readers that
	// accept a stale value, while one load refreshes it. Default: 0s. Bounds: 0s (never) to
	// StaleLimit.
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate" answers:"yes"`
	// StaleIfError is how long after its end a value still goes to readers that accept a
	// stale value, if the origin fails. Default: 0s. Bounds: 0s (never) to StaleLimit.
	StaleIfError time.Duration `yaml:"stale_if_error" answers:"yes"`
	// RefreshEarly is the beta of XFetch: how much before its end a value that is read often
	// is refreshed. Above 1 it is refreshed earlier (see namespaces.Policy). Form: factor.
	// Default: 1. Bounds: 0 (never) to 10.
	RefreshEarly *float64 `yaml:"refresh_early" answers:"yes"`
	// ReplicaLag is how far the replicas of the origin may lag. A value that is loaded
	// within this time after a deletion is returned, but not kept. Default: 0s. Bounds: 0s
	// (not at all) to 10m.
	ReplicaLag time.Duration `yaml:"replica_lag" answers:"yes"`
	// LeaseTime is how long an app may take to load a value itself. Default: 10s. Bounds:
	// 100ms to 10m.
	LeaseTime time.Duration `yaml:"lease_time" answers:"yes"`
	// ExistingKeys is the key filter: a filter of the keys that the origin has. No other key is
	// loaded. Default: none.
	ExistingKeys *ExistingKeys `yaml:"existing_keys" answers:"yes"`
	// WarmOnStart are the keys that are loaded at the start. Default: none.
	WarmOnStart *Warm `yaml:"warm_on_start" reload:"restart"`
	// WriteThrough writes the changes of apps to the origin first. It must be the same on
	// all hosts.
	WriteThrough bool `yaml:"write_through" answers:"yes"`
	// Audit is the share of hits whose value is compared with the origin, in the background.
	// Default: "0%" (none). Bounds: "0%" to "100%".
	Audit Percent `yaml:"audit" answers:"yes"`
	// Limits protect the origin from too many calls.
	Limits Limits `yaml:"limits"`
}

// Limits bound the calls of one host to a namespace's origin. Zero means the
// default.
type Limits = loader.GuardConfig

// Breaker stops the calls to an origin that fails. Zero means the default.
type Breaker = loader.Breaker

// Defaults of a namespace.
const (
	DefaultTTL          = time.Hour
	DefaultStaleLimit   = time.Minute
	DefaultNegativeTTL  = 5 * time.Second
	DefaultTTLJitter    = 0.1
	DefaultRefreshEarly = 1.0
	DefaultLeaseTime    = 10 * time.Second
)

// maxPattern is the maximum length of key_pattern, in bytes.
const maxPattern = 1024

// withDefaults returns a copy with the defaults filled in, but for MaxStaleness, which hosts compare if
// it is given, and those that an origin and its Guard have themselves.
func (n Namespace) withDefaults() Namespace {
	settings.Default(&n.DefaultTTL, DefaultTTL)
	settings.Default(&n.StaleLimit, DefaultStaleLimit)
	settings.Default(&n.NegativeTTL, DefaultNegativeTTL)
	settings.Default(&n.TTLJitter, DefaultTTLJitter)
	settings.Default(&n.RefreshEarly, DefaultRefreshEarly)
	n.LeaseTime = cmp.Or(n.LeaseTime, DefaultLeaseTime)
	return n
}

// check returns all that is wrong with the settings, joined. l2 is the sidecar's L2Size.
func (n Namespace) check(l2 Size) error {
	given := n
	n = n.withDefaults()
	var wrong settings.Problems
	ttl, limit := *n.DefaultTTL, *n.StaleLimit
	if ttl < 0 || ttl > maxLifetime {
		wrong.Addf("default_ttl", "%v: give 0 (no expiry) to %v", ttl, maxLifetime)
	}
	if limit < 0 || limit > maxLifetime {
		wrong.Addf("stale_limit", "%v: give 0 (no stale values) to %v", limit, maxLifetime)
		limit = DefaultStaleLimit
	}
	if n.Quota != 0 && (n.Quota < 64<<10 || n.Quota > l2) {
		wrong.Addf("quota", "%s: give 64 KiB to l2_size (%s), or leave it out", n.Quota, l2)
	}
	if n.StaleWhileRevalidate > limit {
		wrong.Addf("stale_while_revalidate", "%v is above stale_limit %v: lower it, or raise stale_limit",
			n.StaleWhileRevalidate, limit)
	}
	if n.StaleIfError > limit {
		wrong.Addf("stale_if_error", "%v is above stale_limit %v: lower it, or raise "+
			"stale_limit", n.StaleIfError, limit)
	}
	wrong.Add(errors.Join(
		settings.Bounded("stale_while_revalidate", n.StaleWhileRevalidate, 0, maxLifetime),
		settings.Bounded("replica_lag", n.ReplicaLag, 0, 10*time.Minute),
		settings.Bounded("lease_time", n.LeaseTime, 100*time.Millisecond, 10*time.Minute),
	))
	if len(n.KeyPattern) > maxPattern {
		wrong.Addf("key_pattern", "has %d bytes: give at most %d", len(n.KeyPattern), maxPattern)
	}
	_, err := loader.NewKeys(n.KeyPattern, 0)
	wrong.Add(err)
	if n.Origin == nil {
		wrong.Add(given.needsOrigin())
		return wrong.Err()
	}
	_, limits := n.Limits.WithDefaults()
	wrong.Add(errors.Join(
		settings.Bounded("max_key", n.MaxKey, 0, kv.MaxKeyLen),
		settings.Bounded("negative_ttl", *n.NegativeTTL, 0, maxLifetime),
		settings.Bounded("ttl_jitter", *n.TTLJitter, 0, 0.5),
		settings.Bounded("stale_if_error", n.StaleIfError, 0, maxLifetime),
		settings.Bounded("refresh_early", *n.RefreshEarly, 0, 10),
		settings.Bounded("audit", n.Audit, 0, 100),
		limits,
		n.ExistingKeys.check(),
		n.ExistingKeys.checkLag(n.ReplicaLag, n.Origin),
		n.WarmOnStart.check(),
	))
	return wrong.Err()
}

// needsOrigin returns an error for each setting that has no effect because the apps load.
func (n Namespace) needsOrigin() error {
	var wrong settings.Problems
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"max_key", n.MaxKey != 0},
		{"negative_ttl", n.NegativeTTL != nil}, {"ttl_jitter", n.TTLJitter != nil},
		{"stale_if_error", n.StaleIfError != 0}, {"refresh_early", n.RefreshEarly != nil},
		{"existing_keys", n.ExistingKeys != nil}, {"write_through", n.WriteThrough},
		{"warm_on_start", n.WarmOnStart != nil}, {"limits", n.Limits != Limits{}},
		{"audit", n.Audit != 0},
	} {
		if s.given {
			wrong.Addf(s.name, "is for loads from an origin, and there is none: give an origin, or leave it out")
		}
	}
	return wrong.Err()
}

// namespaces returns the settings of all namespaces, with every default filled in.
func (c *Config) namespaces() namespaces.Config {
	t := namespaces.Config{
		Seed: c.seed, Max: c.MaxNamespaces, Bound: c.MaxStaleness, MaxValue: int(c.MaxValue),
		Clock: c.clock, Log: c.Log, Node: c.Node, StrictOrigins: c.StrictOrigins,
		Configured: map[string]namespaces.Settings{}, Others: Namespace{}.spec(),
	}
	fed := c.fed()
	for name, ns := range c.Namespaces {
		one := ns.spec()
		one.OneSpelling = fed[name]
		t.Configured[name] = one
	}
	return t
}

// spec returns the settings with every default filled in.
func (n Namespace) spec() namespaces.Settings {
	n = n.withDefaults()
	return namespaces.Settings{
		TTL: *n.DefaultTTL, StaleLimit: *n.StaleLimit, ReplicaLag: n.ReplicaLag, LeaseTime: n.LeaseTime,
		Bound: n.MaxStaleness, NotShared: n.Shared != nil && !*n.Shared, Quota: int64(n.Quota),
		Policy: namespaces.Policy{
			NegativeTTL: *n.NegativeTTL, StaleWhileRevalidate: n.StaleWhileRevalidate, StaleIfError: n.StaleIfError,
			Beta: *n.RefreshEarly,
		},
		Jitter: *n.TTLJitter,
		Settings: origin.Settings{
			Origin: n.Origin, KeyPattern: n.KeyPattern, MaxKey: int(n.MaxKey), WriteThrough: n.WriteThrough,
			Guard: n.Limits, KeyFilter: n.ExistingKeys.settings(),
		},
		Audit: float64(n.Audit) / 100, Warm: (*namespaces.WarmSettings)(n.WarmOnStart),
	}
}
