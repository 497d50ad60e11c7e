package sidecar

import (
	"errors"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
)

// maxLifetime is the maximum of all settings that say how long something is kept.
const maxLifetime = wire.MaxTTL * time.Millisecond

// ExistingKeys has the settings of a namespace's key filter.
type ExistingKeys struct {
	// Keys is the largest number of keys. Required. Bounds: 1 to about 800000000.
	Keys int `yaml:"keys"`
	// FalsePositives is the share of absent keys that pass the filter. Form: share. Default:
	// 0.01. Bounds: above 0 to 0.5.
	FalsePositives float64 `yaml:"false_positives"`
	// MaxAge is the age after which a filter is not used. Default: 1h. Bounds: up to 8760h.
	MaxAge      time.Duration `yaml:"max_age" answers:"yes" default:"1h"`
	loader.List `yaml:",inline"`
}

func (keys *ExistingKeys) check() error {
	if keys == nil {
		return nil
	}
	if err := errors.Join(
		settings.Bounded("existing_keys.false_positives", keys.FalsePositives, 0, 0.5),
		settings.Bounded("existing_keys.max_age", keys.MaxAge, 0, maxLifetime),
	); err != nil {
		return err
	}
	if _, err := keys.settings().Size(); err != nil {
		return settings.Within("existing_keys", err)
	}
	return nil
}

// checkLag returns an error if the keys are listed by an origin whose replicas lag. A list that lacks a new
// key would make it absent for as long as the filter is used. What a command or a Lister of the program asks
// is not known.
func (keys *ExistingKeys) checkLag(lag time.Duration, origin loader.OriginConfig) error {
	if keys == nil || lag == 0 || keys.Lister != nil || len(keys.Command) > 0 {
		return nil
	}
	if o, ok := origin.(interface{ SameServer(url string) bool }); ok && !o.SameServer(keys.URL) {
		return nil
	}
	return settings.Problemf("replica_lag", "is %v, and existing_keys lists the keys of the same origin: a "+
		"replica that lags "+
		"leaves out new keys, whose reads would be answered absent: leave existing_keys out, or give an origin that "+
		"does not lag and leave replica_lag out", lag)
}

func (keys *ExistingKeys) settings() *keyfilter.Settings {
	return (*keyfilter.Settings)(keys)
}

// Warm has the settings of the keys that are loaded at the start.
type Warm struct {
	// Rate is the number of loads per second. Form: loads per second. Default: 1000. Bounds:
	// up to 1e6.
	Rate float64 `yaml:"rate"`
	// Keys is the largest number of keys that this host loads. Default: 1000000. Bounds: up
	// to 100000000.
	Keys        int `yaml:"keys"`
	loader.List `yaml:",inline"`
}

func (w *Warm) check() error {
	if w == nil {
		return nil
	}
	return errors.Join(
		settings.Bounded("warm_on_start.rate", w.Rate, 0, 1e6),
		settings.Bounded("warm_on_start.keys", w.Keys, 0, 100_000_000),
	)
}
