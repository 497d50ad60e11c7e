package sidecar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// List is how an origin is asked for keys: postgres by Query, http by URL, exec by
// Command; redis needs none of them, and memcached cannot be asked.
type List struct {
	Query   string        `yaml:"query"`   // of one column, the key, without parameters
	URL     string        `yaml:"url"`     // whose answer has a key in each line
	Command []string      `yaml:"command"` // that prints a key in each line
	Timeout time.Duration `yaml:"timeout"` // of all; default 10 min
}

// Known is the settings of a filter of the keys that there are.
type Known struct {
	Keys           int           `yaml:"keys"`            // that there may be; needed
	FalsePositives float64       `yaml:"false_positives"` // the share of other keys that is asked for all the same; default 0.01
	MaxAge         time.Duration `yaml:"max_age"`         // after which a filter does not count; default 1 h
	List           `yaml:",inline"`
}

func (k *Known) check() error {
	if k == nil {
		return nil
	}
	if _, err := loader.NewKnown(k.filter()); err != nil {
		return fmt.Errorf("known: %w", err)
	}
	return cmp.Or(
		bounded("known.false_positives", k.FalsePositives, 0, 0.5),
		bounded("known.max_age", k.MaxAge, 0, maxLifetime),
		k.List.check("known."),
	)
}

func (k *Known) filter() loader.KnownConfig {
	return loader.KnownConfig{Keys: k.Keys, FalsePositives: k.FalsePositives, MaxAge: k.MaxAge}
}

// Warm is the settings of the keys that are loaded at the start.
type Warm struct {
	Rate float64 `yaml:"rate"` // loads per second; default 1,000
	Keys int     `yaml:"keys"` // of this host, at most; default 1,000,000
	List `yaml:",inline"`
}

func (w *Warm) check() error {
	if w == nil {
		return nil
	}
	return cmp.Or(
		bounded("warm_on_start.rate", w.Rate, 0, 1e6),
		bounded("warm_on_start.keys", w.Keys, 0, 100_000_000),
		w.List.check("warm_on_start."),
	)
}

func (w *Warm) rate() float64 { return cmp.Or(w.Rate, 1000) }
func (w *Warm) keys() int     { return cmp.Or(w.Keys, 1_000_000) }

// maxListTime bounds the time that a list of keys may take.
const maxListTime = 24 * time.Hour

func (l List) check(before string) error {
	return bounded(before+"timeout", l.Timeout, 0, maxListTime)
}

// takes says so where the settings that are given are not the one that this kind
// of origin takes; "" is none.
func (l List) takes(setting string) error {
	for _, s := range []struct {
		name  string
		given bool
	}{{"query", l.Query != ""}, {"url", l.URL != ""}, {"command", len(l.Command) > 0}} {
		switch {
		case s.given && s.name != setting:
			return fmt.Errorf("%s is for another kind of origin: leave it out", s.name)
		case !s.given && s.name == setting:
			return fmt.Errorf("there is no %s that gives all keys: give it", s.name)
		}
	}
	return nil
}

// lister makes what asks an origin for keys; own is the embedding program's.
func (o *opened) lister(l List, own loader.Lister) (loader.Lister, error) {
	switch {
	case own != nil:
		return own, l.takes("")
	case o.list == nil:
		return nil, errors.New("this kind of origin cannot list its keys: leave it out")
	}
	list, err := o.list(l)
	if err != nil {
		return nil, err
	}
	o.also(list)
	return o.hide.lister(list), nil
}

func listHTTP(s *httporigin.Source) func(List) (loader.Lister, error) {
	return func(l List) (loader.Lister, error) {
		if err := l.takes("url"); err != nil {
			return nil, err
		}
		return s.NewLister(httporigin.ListConfig{URL: l.URL, Timeout: l.Timeout})
	}
}

func listPostgres(s *postgres.Source) func(List) (loader.Lister, error) {
	return func(l List) (loader.Lister, error) {
		if err := l.takes("query"); err != nil {
			return nil, err
		}
		return s.NewLister(postgres.ListConfig{Query: l.Query, Timeout: l.Timeout})
	}
}

func listRedis(s *redisorigin.Source) func(List) (loader.Lister, error) {
	return func(l List) (loader.Lister, error) {
		if err := l.takes(""); err != nil {
			return nil, err
		}
		return s.NewLister(redisorigin.ListConfig{Timeout: l.Timeout})
	}
}

func listExec(s *execorigin.Source) func(List) (loader.Lister, error) {
	return func(l List) (loader.Lister, error) {
		if err := l.takes("command"); err != nil {
			return nil, err
		}
		return s.NewLister(execorigin.ListConfig{Command: l.Command, Timeout: l.Timeout})
	}
}

// lister is a lister whose errors show none of the secrets.
func (s secrets) lister(from loader.Lister) loader.Lister { return hidingLister{from, s} }

type hidingLister struct {
	from loader.Lister
	hide secrets
}

func (h hidingLister) Keys(ctx context.Context, each func(key []byte) error) error {
	return h.hide.hide(h.from.Keys(ctx, each))
}
