package sidecar

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// Check validates a configuration, the files that it names, and that the machine
// has the memory. It asks no origin. The error joins all that is wrong (errors.Join).
func (c Config) Check() error {
	var wrong settings.Problems
	c, err := c.withDefaults()
	wrong.Add(err)
	if c.paths().Check() == nil {
		_, err = c.credentials()
		wrong.Add(err)
	}
	_, err = c.rules()
	wrong.Add(err)
	for name, ns := range c.Namespaces {
		wrong.Add(c.checkOrigin(name, ns))
	}
	_, err = c.openFeeds()
	wrong.Add(err)
	wrong.Add(checkMemory(c))
	return wrong.Err()
}

// checkOrigin opens the origin of a namespace and closes it. The settings of the namespace
// itself have been checked: if they are wrong, they do not count here.
func (c *Config) checkOrigin(name string, ns Namespace) error {
	if ns.check(c.L2Size) != nil {
		ns = Namespace{Origin: ns.Origin, WriteThrough: ns.WriteThrough}
	}
	cfg := c.namespaces()
	o, err := namespaces.OpenOrigin(name, ns.spec(), &cfg)
	if o == nil || err != nil {
		return err
	}
	return o.Close()
}

// Effective returns a copy in which the settings that were left out have the values that
// New would use, for people to read. What an origin itself leaves out stays so. The error
// joins what is wrong; such a setting may have its default.
func (c Config) Effective() (Config, error) {
	c, err := c.withDefaults()
	off := func(address *string) { *address = cmp.Or(*address, "off") }
	off(&c.Bind)
	off(&c.HTTP)
	off(&c.Memcached)
	c.Socket = cmp.Or(c.Socket, unixsock.Expected())
	c.SocketMode = cmp.Or(c.SocketMode, FileMode(unixsock.DefaultMode))
	c.Namespaces = maps.Clone(c.Namespaces)
	for name, ns := range c.Namespaces {
		c.Namespaces[name] = ns.effective()
	}
	return c, err
}

// effective returns a copy with the defaults of the settings that count: without an origin,
// those of origins do not. MaxStaleness stays: hosts compare it if it is given.
func (n Namespace) effective() Namespace {
	all := n.withDefaults()
	if n.Origin == nil {
		n.DefaultTTL, n.StaleLimit, n.LeaseTime = all.DefaultTTL, all.StaleLimit, all.LeaseTime
		return n
	}
	n = all
	n.MaxKey = cmp.Or(n.MaxKey, kv.MaxKeyLen)
	if limits, err := n.Limits.WithDefaults(); err == nil {
		limits.Timeout = n.Limits.Timeout // its default differs between the kinds of origins
		n.Limits = limits
	}
	return n
}

// OriginAnswer is how the origin of a namespace has answered to AskOrigins.
type OriginAnswer struct {
	Namespace string
	Kind      string // of the origin
	Took      time.Duration
	Err       error // nil if it answered, or was not asked; shows no secret
	Unasked   bool  // there is no key to ask for: the namespace lets no invented one pass
}

// asksAtOnce bounds the origins that AskOrigins asks at once.
const asksAtOnce = 16

// AskOrigins asks the origin of each namespace once, until ctx ends, and returns the
// answers in the order of the names. An origin that can check its settings does so, such as
// a database that prepares the query; another one is asked for a key. It fails if the
// settings are wrong.
func (c Config) AskOrigins(ctx context.Context) ([]OriginAnswer, error) {
	c, err := c.withDefaults()
	if err != nil {
		return nil, err
	}
	var answers []OriginAnswer
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		if o := c.Namespaces[name].Origin; o != nil {
			answers = append(answers, OriginAnswer{Namespace: name, Kind: o.Kind()})
		}
	}
	var all sync.WaitGroup
	places := make(chan struct{}, asksAtOnce)
	for i := range answers {
		places <- struct{}{}
		all.Go(func() { // ends with the answer; AskOrigins waits for it
			defer func() { <-places }()
			begun := time.Now()
			answers[i].Unasked, answers[i].Err = c.askOrigin(ctx, answers[i].Namespace)
			answers[i].Took = time.Since(begun)
		})
	}
	all.Wait()
	return answers, nil
}

// askOrigin opens an origin, asks it once, and closes it.
func (c *Config) askOrigin(ctx context.Context, name string) (unasked bool, err error) {
	cfg := c.namespaces()
	o, err := namespaces.OpenOrigin(name, cfg.Configured[name], &cfg)
	if err != nil {
		return false, err
	}
	err = o.AskOnce(ctx)
	return !o.CanAsk(), errors.Join(err, o.Close())
}
