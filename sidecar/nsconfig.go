package sidecar

import (
	"cmp"
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Namespace has the settings of one namespace.
type Namespace struct {
	// DefaultTTL is the TTL of writes and loads without a TTL of their own. Default: 1h.
	// Bounds: 0s (no expiry) to 8760h.
	DefaultTTL *time.Duration `yaml:"default_ttl"`
	// MaxStaleness bounds how long after a change an outdated value of this namespace may be
	// read. It must be the same on all hosts. Default: the sidecar's. Bounds: 200ms to the
	// sidecar's.
	MaxStaleness time.Duration `yaml:"max_staleness" reload:"restart"`
	// StaleLimit is how long a soft deletion keeps the old value for readers that accept a
	// stale value. It also bounds StaleWhileRevalidate and StaleIfError. With zero, soft
	// deletions are hard deletions. Default: 1m. Bounds: 0s (no stale values) to 8760h.
	StaleLimit *time.Duration `yaml:"stale_limit"`
	// Quota bounds the bytes of the namespace on this host, headers included. A new key
	// evicts the oldest keys. Default: none. Bounds: 64KiB to L2Size.
	Quota Size `yaml:"quota"`
	// Shared says whether apps may read hot values from shared memory (shared_size). Default:
	// true.
	Shared *bool `yaml:"shared"`

	// Origin is where missing values are loaded from: the Config of one of the packages
	// below loader, or a loader.Custom. Default: the apps load.
	Origin loader.OriginConfig `yaml:"-" setting:"origin"`

	// KeyPattern is what a whole key must match to be loaded from the origin. Form: regular
	// expression (RE2). Default: any key. Bounds: up to 1024 bytes.
	KeyPattern string `yaml:"key_pattern"`
	// MaxKey bounds the length of keys that are loaded from the origin, in bytes. Default:
	// 1024B. Bounds: 1B to 1024B.
	MaxKey Size `yaml:"max_key"`
	// NegativeTTL is how long the answer of the origin that it has no such key is kept.
	// Default: 5s. Bounds: 0s (not kept) to 8760h.
	NegativeTTL *time.Duration `yaml:"negative_ttl"`
	// TTLJitter is the share by which the TTL of loaded values varies in both directions.
	// Form: share. Default: 0.1. Bounds: 0 to 0.5.
	TTLJitter *float64 `yaml:"ttl_jitter"`
	// StaleWhileRevalidate is how long after its end a value still goes to readers that
	// accept a stale value, while one load refreshes it. Default: 0s. Bounds: 0s (never) to
	// StaleLimit.
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate"`
	// StaleIfError is how long after its end a value still goes to readers that accept a
	// stale value, if the origin fails. Default: 0s. Bounds: 0s (never) to StaleLimit.
	StaleIfError time.Duration `yaml:"stale_if_error"`
	// RefreshEarly is the beta of XFetch: how much before its end a value that is read often
	// is refreshed. Above 1 it is refreshed earlier (see namespaces.Policy). Form: factor.
	// Default: 1. Bounds: 0 (never) to 10.
	RefreshEarly *float64 `yaml:"refresh_early"`
	// ReplicaLag is how far the replicas of the origin may lag. A value that is loaded
	// within this time after a deletion is returned, but not kept. Default: 0s. Bounds: 0s
	// (not at all) to 10m.
	ReplicaLag time.Duration `yaml:"replica_lag"`
	// LeaseTime is how long an app may take to load a value itself. Default: 10s. Bounds:
	// 100ms to 10m.
	LeaseTime time.Duration `yaml:"lease_time"`
	// ExistingKeys is the key filter: a filter of the keys that the origin has. No other key is
	// loaded. Default: none.
	ExistingKeys *ExistingKeys `yaml:"existing_keys"`
	// WarmOnStart are the keys that are loaded at the start. Default: none.
	WarmOnStart *Warm `yaml:"warm_on_start" reload:"restart"`
	// WriteThrough writes the changes of apps to the origin first. It must be the same on
	// all hosts.
	WriteThrough bool `yaml:"write_through"`
	// Audit is the share of hits whose value is compared with the origin, in the background.
	// Default: "0%" (none). Bounds: "0%" to "100%".
	Audit Percent `yaml:"audit"`
	// Limits protect the origin from too many calls.
	Limits Limits `yaml:"limits"`
}

// Limits bound the calls of one host to a namespace's origin. Zero means the
// default.
type Limits struct {
	// Concurrency is the number of calls at once. Form: calls. Default: 64. Bounds: up to
	// 65536.
	Concurrency int `yaml:"concurrency"`
	// Queue is the number of loads that wait for a place. Form: loads. Default: 1024.
	// Bounds: up to 1048576.
	Queue int `yaml:"queue"`
	// QueueTime is the longest wait for a place, and for the rate. Default: 1s. Bounds: up
	// to 30s.
	QueueTime time.Duration `yaml:"queue_time"`
	// Rate is the number of calls per second, retries included. Form: calls per second.
	// Default: no limit. Bounds: up to 1e9.
	Rate float64 `yaml:"rate"`
	// Burst is the number of calls at once after a rest. Form: calls. Default: a tenth of
	// Rate, at least 1. Bounds: up to 1048576.
	Burst int `yaml:"burst"`
	// Timeout is the time for one call. Default: 5s; redis 1s, memcached 500ms. Bounds: up
	// to 30s.
	Timeout time.Duration `yaml:"timeout"`
	// Breaker stops the calls to an origin that fails.
	Breaker Breaker `yaml:"breaker"`
	// Retries is the number of retries after a failed call. Form: calls. Default: none.
	// Bounds: up to 10.
	Retries int `yaml:"retries"`
	// RetryShare is the number of retries per load, in the long run. Form: share. Default:
	// 0.1. Bounds: up to 1.
	RetryShare float64 `yaml:"retry_share"`
}

// Breaker stops the calls to an origin that fails. Zero means the default.
type Breaker struct {
	// Failures is the number of failures in a row that open the breaker. Form: calls.
	// Default: 5. Bounds: up to 1048576.
	Failures int `yaml:"failures"`
	// Open is how long the breaker stays open. Default: 5s. Bounds: up to 10m.
	Open time.Duration `yaml:"open"`
	// Probes is the number of calls at once while the breaker is half open, and of the
	// successes that close it. Form: calls. Default: 1. Bounds: up to 1024.
	Probes int `yaml:"probes"`
}

// Defaults of a namespace.
const (
	DefaultTTL          = time.Hour
	DefaultStaleLimit   = time.Minute
	DefaultNegativeTTL  = 5 * time.Second
	DefaultTTLJitter    = 0.1
	DefaultRefreshEarly = 1.0
	DefaultLeaseTime    = 10 * time.Second
)

// maxLifetime is the maximum of all settings that say how long something is kept.
const maxLifetime = wire.MaxTTL * time.Millisecond

// maxPattern is the maximum length of key_pattern, in bytes.
const maxPattern = 1024

// check returns all that is wrong with the settings, joined. l2 is the sidecar's L2Size.
func (n Namespace) check(l2 Size) error {
	var wrong settings.Problems
	if n.ttl() < 0 || n.ttl() > maxLifetime {
		wrong.Addf("default_ttl %v: give 0 (no expiry) to %v", n.ttl(), maxLifetime)
	}
	if n.staleLimit() < 0 || n.staleLimit() > maxLifetime {
		wrong.Addf("stale_limit %v: give 0 (no stale values) to %v", n.staleLimit(), maxLifetime)
		n.StaleLimit = nil
	}
	if n.Quota != 0 && (n.Quota < 64<<10 || n.Quota > l2) {
		wrong.Addf("quota %s: give 64 KiB to l2_size (%s), or leave it out", n.Quota, l2)
	}
	if n.StaleWhileRevalidate > n.staleLimit() {
		wrong.Addf("stale_while_revalidate %v is above stale_limit %v: lower it, or raise stale_limit",
			n.StaleWhileRevalidate, n.staleLimit())
	}
	if n.StaleIfError > n.staleLimit() {
		wrong.Addf("stale_if_error %v is above stale_limit %v: lower it, or raise stale_limit",
			n.StaleIfError, n.staleLimit())
	}
	wrong.Add(errors.Join(
		settings.Bounded("stale_while_revalidate", n.StaleWhileRevalidate, 0, maxLifetime),
		settings.Bounded("replica_lag", n.ReplicaLag, 0, 10*time.Minute),
		settings.Bounded("lease_time", n.leaseTime(), 100*time.Millisecond, 10*time.Minute),
	))
	if n.Origin == nil {
		wrong.Add(n.needsOrigin())
		return wrong.Err()
	}
	if len(n.KeyPattern) > maxPattern {
		wrong.Addf("key_pattern has %d bytes: give at most %d", len(n.KeyPattern), maxPattern)
	}
	wrong.Add(errors.Join(
		settings.Bounded("max_key", n.MaxKey, 0, kv.MaxKeyLen),
		settings.Bounded("negative_ttl", n.policy().NegativeTTL, 0, maxLifetime),
		settings.Bounded("ttl_jitter", n.ttlJitter(), 0, 0.5),
		settings.Bounded("stale_if_error", n.StaleIfError, 0, maxLifetime),
		settings.Bounded("refresh_early", n.policy().Beta, 0, 10),
		settings.Bounded("audit", n.Audit, 0, 100),
		n.Limits.check(),
		n.ExistingKeys.check(),
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
		{"key_pattern", n.KeyPattern != ""}, {"max_key", n.MaxKey != 0},
		{"negative_ttl", n.NegativeTTL != nil}, {"ttl_jitter", n.TTLJitter != nil},
		{"stale_if_error", n.StaleIfError != 0}, {"refresh_early", n.RefreshEarly != nil},
		{"existing_keys", n.ExistingKeys != nil}, {"write_through", n.WriteThrough},
		{"warm_on_start", n.WarmOnStart != nil}, {"limits", n.Limits != Limits{}},
		{"audit", n.Audit != 0},
	} {
		if s.given {
			wrong.Addf("%s is for loads from an origin, and there is none: give an origin, or leave it out", s.name)
		}
	}
	return wrong.Err()
}

func (l Limits) check() error {
	return errors.Join(
		settings.Bounded("limits.concurrency", l.Concurrency, 0, 1<<16),
		settings.Bounded("limits.queue", l.Queue, 0, 1<<20),
		settings.Bounded("limits.queue_time", l.QueueTime, 0, maxCallTime),
		settings.Bounded("limits.rate", l.Rate, 0, 1e9),
		settings.Bounded("limits.burst", l.Burst, 0, 1<<20),
		settings.Bounded("limits.timeout", l.Timeout, 0, maxCallTime),
		settings.Bounded("limits.breaker.failures", l.Breaker.Failures, 0, 1<<20),
		settings.Bounded("limits.breaker.open", l.Breaker.Open, 0, 10*time.Minute),
		settings.Bounded("limits.breaker.probes", l.Breaker.Probes, 0, 1<<10),
		settings.Bounded("limits.retries", l.Retries, 0, 10),
		settings.Bounded("limits.retry_share", l.RetryShare, 0, 1),
	)
}

// maxCallTime is the maximum of the settings for one call to an origin. A load with its
// waits and retries ends after that time (flight.LoadsConfig.Timeout).
const maxCallTime = 30 * time.Second

// policy returns how long values live, both for loads by the sidecar and by the apps.
func (n Namespace) policy() namespaces.Policy {
	return namespaces.Policy{
		NegativeTTL:          settings.Or(n.NegativeTTL, DefaultNegativeTTL),
		StaleWhileRevalidate: n.StaleWhileRevalidate,
		StaleIfError:         n.StaleIfError,
		Beta:                 settings.Or(n.RefreshEarly, DefaultRefreshEarly),
	}
}

// guard returns the limits in the loader's form.
func (l Limits) guard() loader.GuardConfig {
	return loader.GuardConfig{
		Concurrency: l.Concurrency, Queue: l.Queue, QueueTime: l.QueueTime,
		Rate: l.Rate, Burst: l.Burst, Timeout: l.Timeout,
		Failures: l.Breaker.Failures, Open: l.Breaker.Open, Probes: l.Breaker.Probes,
		Retries: l.Retries, RetryShare: l.RetryShare,
	}
}

// namespaces returns the settings of all namespaces, with every default filled in.
func (c *Config) namespaces() namespaces.Config {
	t := namespaces.Config{
		Seed: c.seed, Max: c.MaxNamespaces, Bound: c.MaxStaleness, MaxValue: int(c.MaxValue),
		Clock: c.clock, Log: c.Log, Node: c.Node,
		Configured: map[string]namespaces.Settings{}, Others: Namespace{}.spec(),
	}
	for name, ns := range c.Namespaces {
		t.Configured[name] = ns.spec()
	}
	return t
}

// spec returns the settings with every default filled in.
func (n Namespace) spec() namespaces.Settings {
	return namespaces.Settings{
		TTL: n.ttl(), StaleLimit: n.staleLimit(), ReplicaLag: n.ReplicaLag, LeaseTime: n.leaseTime(),
		Bound: n.MaxStaleness, NotShared: n.Shared != nil && !*n.Shared,
		Quota: int64(n.Quota), Policy: n.policy(), Jitter: n.ttlJitter(),
		Origin: n.Origin, KeyPattern: n.KeyPattern, MaxKey: int(n.MaxKey), WriteThrough: n.WriteThrough,
		Guard: n.Limits.guard(), Audit: float64(n.Audit) / 100,
		KeyFilter: n.ExistingKeys.settings(), Warm: (*namespaces.WarmSettings)(n.WarmOnStart),
	}
}

// ttl is for writes and loads without a TTL of their own; zero: no expiry.
func (n Namespace) ttl() time.Duration        { return settings.Or(n.DefaultTTL, DefaultTTL) }
func (n Namespace) staleLimit() time.Duration { return settings.Or(n.StaleLimit, DefaultStaleLimit) }
func (n Namespace) ttlJitter() float64        { return settings.Or(n.TTLJitter, DefaultTTLJitter) }
func (n Namespace) leaseTime() time.Duration  { return cmp.Or(n.LeaseTime, DefaultLeaseTime) }
