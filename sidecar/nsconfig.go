package sidecar

import (
	"cmp"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Namespace has the settings of one namespace.
type Namespace struct {
	// DefaultTTL is the TTL of writes and loads without a TTL of their own. Zero: no
	// expiry. Default: 1 h.
	DefaultTTL *time.Duration `yaml:"default_ttl"`
	// MaxStaleness bounds how long after a change an outdated value of this namespace may
	// be read: 200 ms up to the sidecar's own bound, which is the default. It must be the
	// same on all hosts.
	MaxStaleness time.Duration `yaml:"max_staleness"`
	// StaleLimit is how long a soft deletion keeps the old value for readers that accept
	// a stale value. It also bounds StaleWhileRevalidate and StaleIfError. Zero: soft
	// deletions are hard deletions. Default: 1 min.
	StaleLimit *time.Duration `yaml:"stale_limit"`
	// Quota bounds the bytes of the namespace on this host, headers included: 64 KiB up
	// to L2Size. A new key evicts the oldest keys. Default: no quota.
	Quota Size `yaml:"quota"`

	// Origin is where missing values are loaded from: the Config of one of the packages
	// below loader, or a loader.Custom. Default: the apps load.
	Origin loader.OriginConfig `yaml:"-"`

	// KeyPattern is a regular expression (RE2). A key is loaded from the origin only if
	// the whole key matches. Default: any key.
	KeyPattern string `yaml:"key_pattern"`
	// MaxKey bounds the length of keys that are loaded from the origin, in bytes. Default
	// and maximum: 1,024.
	MaxKey Size `yaml:"max_key"`
	// NegativeTTL is how long the origin's answer "no such key" is kept. Zero: it is not
	// kept. Default: 5 s.
	NegativeTTL *time.Duration `yaml:"negative_ttl"`
	// TTLJitter is the share by which the TTL of loaded values varies in both directions,
	// 0 to 0.5. Default: 0.1.
	TTLJitter *float64 `yaml:"ttl_jitter"`
	// StaleWhileRevalidate is how long after its end a value still goes to readers that
	// accept a stale value, while one load refreshes it. Zero, the default: never.
	StaleWhileRevalidate time.Duration `yaml:"stale_while_revalidate"`
	// StaleIfError is how long after its end a value still goes to readers that accept a
	// stale value, if the origin fails. Zero, the default: never.
	StaleIfError time.Duration `yaml:"stale_if_error"`
	// RefreshEarly is the beta of XFetch (see loader.Policy), 0 to 10. Above 1, values
	// that are read often are refreshed longer before their end. Zero: never. Default: 1.
	RefreshEarly *float64 `yaml:"refresh_early"`
	// ReplicaLag is how far the replicas of the origin may lag. A value that is loaded
	// within this time after a deletion is returned, but not kept. Zero, the default: no
	// lag. Maximum: 10 min.
	ReplicaLag time.Duration `yaml:"replica_lag"`
	// LeaseTime is how long an app may take to load a value itself, 100 ms to 10 min.
	// Default: 10 s.
	LeaseTime time.Duration `yaml:"lease_time"`
	// Known is the key filter: a filter of the keys that the origin has. No other key is
	// loaded. Default: no filter.
	Known *Known `yaml:"existing_keys"`
	// WarmOnStart loads the keys of a list at the start. Default: nothing is loaded.
	WarmOnStart *Warm `yaml:"warm_on_start"`
	// WriteThrough writes the changes of apps to the origin first. It must be the same on
	// all hosts.
	WriteThrough bool `yaml:"write_through"`
	// Limits protect the origin from too many calls.
	Limits Limits `yaml:"limits"`
}

// Limits bound the calls of one host to a namespace's origin. Zero means the default,
// which is the number at the end of each comment.
type Limits struct {
	Concurrency int           `yaml:"concurrency"` // calls at once; 64
	Queue       int           `yaml:"queue"`       // loads that wait for a place; 1,024
	QueueTime   time.Duration `yaml:"queue_time"`  // longest wait for a place, and for the rate; 1 s
	Rate        float64       `yaml:"rate"`        // calls per second, retries included; no limit
	Burst       int           `yaml:"burst"`       // calls at once after a rest; a tenth of Rate, at least 1
	Timeout     time.Duration `yaml:"timeout"`     // per call; 5 s, redis 1 s, memcached 500 ms
	Breaker     Breaker       `yaml:"breaker"`
	Retries     int           `yaml:"retries"`     // after a failed call; none
	RetryShare  float64       `yaml:"retry_share"` // retries per load, in the long run; 0.1
}

// Breaker stops the calls to an origin that fails. Zero means the default, which is the
// number at the end of each comment.
type Breaker struct {
	Failures int           `yaml:"failures"` // failures in a row that open the breaker; 5
	Open     time.Duration `yaml:"open"`     // time for which it stays open; 5 s
	Probes   int           `yaml:"probes"`   // calls at once while it is half open, and successes that close it; 1
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

// check returns what is wrong with the settings. l2 is the sidecar's L2Size.
func (n Namespace) check(l2 Size) error {
	switch {
	case n.ttl() < 0 || n.ttl() > maxLifetime:
		return fmt.Errorf("default_ttl %v: give 0 (no expiry) to %v", n.ttl(), maxLifetime)
	case n.staleLimit() < 0 || n.staleLimit() > maxLifetime:
		return fmt.Errorf("stale_limit %v: give 0 (no stale values) to %v", n.staleLimit(), maxLifetime)
	case n.Quota != 0 && (n.Quota < 64<<10 || n.Quota > l2):
		return fmt.Errorf("quota %s: give 64 KiB to l2_size (%s), or leave it out", n.Quota, l2)
	case n.StaleWhileRevalidate > n.staleLimit():
		return fmt.Errorf("stale_while_revalidate %v is above stale_limit %v: lower it, or raise stale_limit", n.StaleWhileRevalidate, n.staleLimit())
	case n.StaleIfError > n.staleLimit():
		return fmt.Errorf("stale_if_error %v is above stale_limit %v: lower it, or raise stale_limit", n.StaleIfError, n.staleLimit())
	case len(n.KeyPattern) > maxPattern:
		return fmt.Errorf("key_pattern has %d bytes: give at most %d", len(n.KeyPattern), maxPattern)
	}
	if err := n.needsOrigin(); err != nil {
		return err
	}
	return cmp.Or(
		settings.Bounded("max_key", n.MaxKey, 0, kv.MaxKeyLen),
		settings.Bounded("negative_ttl", n.policy().NegativeTTL, 0, maxLifetime),
		settings.Bounded("ttl_jitter", n.ttlJitter(), 0, 0.5),
		settings.Bounded("stale_while_revalidate", n.StaleWhileRevalidate, 0, maxLifetime),
		settings.Bounded("stale_if_error", n.StaleIfError, 0, maxLifetime),
		settings.Bounded("refresh_early", n.policy().Beta, 0, 10),
		settings.Bounded("replica_lag", n.ReplicaLag, 0, 10*time.Minute),
		settings.Bounded("lease_time", n.leaseTime(), 100*time.Millisecond, 10*time.Minute),
		n.Limits.check(),
		n.Known.check(),
		n.WarmOnStart.check(),
	)
}

// needsOrigin returns an error if a setting has no effect because the apps load.
func (n Namespace) needsOrigin() error {
	if n.Origin != nil {
		return nil
	}
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"key_pattern", n.KeyPattern != ""}, {"max_key", n.MaxKey != 0},
		{"negative_ttl", n.NegativeTTL != nil}, {"ttl_jitter", n.TTLJitter != nil},
		{"stale_if_error", n.StaleIfError != 0}, {"refresh_early", n.RefreshEarly != nil},
		{"existing_keys", n.Known != nil}, {"write_through", n.WriteThrough}, {"warm_on_start", n.WarmOnStart != nil}, {"limits", n.Limits != Limits{}},
	} {
		if s.given {
			return fmt.Errorf("%s is for loads from an origin, and there is none: give an origin, or leave it out", s.name)
		}
	}
	return nil
}

func (l Limits) check() error {
	return cmp.Or(
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
func (n Namespace) policy() loader.Policy {
	return loader.Policy{
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
		Seed: c.seed, Max: c.MaxNamespaces, Bound: c.MaxStaleness, MaxValue: int(c.MaxValue), Clock: c.Clock, Log: c.Log,
		Configured: map[string]namespaces.Settings{}, Others: Namespace{}.spec(),
	}
	for name, ns := range c.Namespaces {
		t.Configured[name] = ns.spec()
	}
	return t
}

// spec returns the settings with every default filled in.
func (n Namespace) spec() namespaces.Settings {
	s := namespaces.Settings{
		TTL: n.ttl(), StaleLimit: n.staleLimit(), ReplicaLag: n.ReplicaLag, LeaseTime: n.leaseTime(), Bound: n.MaxStaleness,
		Quota: int64(n.Quota), Policy: n.policy(), Jitter: n.ttlJitter(),
		Origin: n.Origin, KeyPattern: n.KeyPattern, MaxKey: int(n.MaxKey), WriteThrough: n.WriteThrough, Guard: n.Limits.guard(),
	}
	if n.Known != nil {
		s.Known = &namespaces.FilterSettings{Filter: n.Known.filter(), List: n.Known.List}
	}
	if n.WarmOnStart != nil {
		s.Warm = &namespaces.WarmSettings{Rate: cmp.Or(n.WarmOnStart.Rate, 1000), Keys: cmp.Or(n.WarmOnStart.Keys, 1_000_000), List: n.WarmOnStart.List}
	}
	return s
}

// ttl is for writes and loads without a TTL of their own; zero: no expiry.
func (n Namespace) ttl() time.Duration        { return settings.Or(n.DefaultTTL, DefaultTTL) }
func (n Namespace) staleLimit() time.Duration { return settings.Or(n.StaleLimit, DefaultStaleLimit) }
func (n Namespace) ttlJitter() float64        { return settings.Or(n.TTLJitter, DefaultTTLJitter) }
func (n Namespace) leaseTime() time.Duration  { return cmp.Or(n.LeaseTime, DefaultLeaseTime) }
