package sidecar

import (
	"cmp"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/keyfilter"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Known has the settings of a namespace's key filter.
type Known struct {
	Keys           int           `yaml:"keys"`            // maximum number; required
	FalsePositives float64       `yaml:"false_positives"` // share of absent keys that pass, 0 to 0.5; zero: 0.01
	MaxAge         time.Duration `yaml:"max_age"`         // age after which a filter is not used; zero: 1 h
	loader.List    `yaml:",inline"`
}

func (k *Known) check() error {
	if k == nil {
		return nil
	}
	if _, err := keyfilter.NewKnown(k.filter()); err != nil {
		return fmt.Errorf("existing_keys: %w", err)
	}
	return cmp.Or(
		settings.Bounded("existing_keys.false_positives", k.FalsePositives, 0, 0.5),
		settings.Bounded("existing_keys.max_age", k.MaxAge, 0, maxLifetime),
	)
}

func (k *Known) filter() keyfilter.KnownConfig {
	return keyfilter.KnownConfig{Keys: k.Keys, FalsePositives: k.FalsePositives, MaxAge: k.MaxAge}
}

// Warm has the settings of the keys that are loaded at the start.
type Warm struct {
	Rate        float64 `yaml:"rate"` // loads per second; zero: 1,000
	Keys        int     `yaml:"keys"` // maximum for this host; zero: 1,000,000
	loader.List `yaml:",inline"`
}

func (w *Warm) check() error {
	if w == nil {
		return nil
	}
	return cmp.Or(
		settings.Bounded("warm_on_start.rate", w.Rate, 0, 1e6),
		settings.Bounded("warm_on_start.keys", w.Keys, 0, 100_000_000),
	)
}
