package sidecar

import (
	"cmp"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Known is the settings of a filter of the keys that there are.
type Known struct {
	Keys           int           `yaml:"keys"`            // that there may be; needed
	FalsePositives float64       `yaml:"false_positives"` // the share of other keys that is asked for all the same; default 0.01
	MaxAge         time.Duration `yaml:"max_age"`         // after which a filter does not count; default 1 h
	loader.List    `yaml:",inline"`
}

func (k *Known) check() error {
	if k == nil {
		return nil
	}
	if _, err := loader.NewKnown(k.filter()); err != nil {
		return fmt.Errorf("existing_keys: %w", err)
	}
	return cmp.Or(
		settings.Bounded("existing_keys.false_positives", k.FalsePositives, 0, 0.5),
		settings.Bounded("existing_keys.max_age", k.MaxAge, 0, maxLifetime),
	)
}

func (k *Known) filter() loader.KnownConfig {
	return loader.KnownConfig{Keys: k.Keys, FalsePositives: k.FalsePositives, MaxAge: k.MaxAge}
}

// Warm is the settings of the keys that are loaded at the start.
type Warm struct {
	Rate        float64 `yaml:"rate"` // loads per second; default 1,000
	Keys        int     `yaml:"keys"` // of this host, at most; default 1,000,000
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
