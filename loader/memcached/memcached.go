// Package memcached loads values, with their flags, from an existing memcached.
//
// The input is a list of servers and a prefix for keys. Keys are distributed over the
// servers as gomemcache does it (CRC32 modulo the number of servers). The output is the
// item. The classic protocol does not give the remaining lifetime of an item, so the
// namespace's TTL applies.
//
// Writes set and delete items. memcached cannot list keys.
//
// The package starts no goroutine. A call ends with its answer or at the timeout, not
// with its context, because the client does not support contexts.
package memcached

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Config has the settings of the servers.
type Config struct {
	// Servers are the addresses of the servers. Form: list of host:port, or paths of
	// sockets. Required.
	Servers []string `yaml:"servers"`
	// KeyPrefix is what stands before each key. Default: none. Bounds: with the key up to
	// 250 bytes.
	KeyPrefix string `yaml:"key_prefix" answers:"yes"`
	// Connections is the number of idle connections to each server. Default: 64. Bounds: up
	// to 65536.
	Connections int `yaml:"connections"`

	Write WriteConfig `yaml:",inline"`
}

const (
	defaultConnections = 64
	defaultTimeout     = 500 * time.Millisecond // for connecting, and again for the answer
)

// Kind returns "memcached".
func (Config) Kind() string { return "memcached" }

// Descriptors returns the maximum number of file descriptors that calls use.
func (cfg Config) Descriptors() int {
	return cmp.Or(cfg.Connections, defaultConnections) * len(cfg.Servers)
}

// Open opens the origin. It connects at the first load.
func (cfg Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	s, err := New(cfg, o)
	if err != nil {
		return nil, err
	}
	return &loader.Origin{Source: s, Writer: s, Probe: true, Close: s.Close}, nil
}

// Source loads values from the servers, and writes them there. It is safe for concurrent use.
type Source struct {
	cfg     Config
	options loader.OriginOptions
	client  *memcache.Client
	terms   loader.Terms
}

// New validates the configuration. The source connects at the first load.
func New(cfg Config, o loader.OriginOptions) (*Source, error) {
	var wrong settings.Problems
	if len(cfg.Servers) == 0 {
		wrong.Addf("servers", ": there are none: give host:port or the path of a socket")
	}
	for _, server := range cfg.Servers {
		wrong.Add(settings.Address("servers", server))
	}
	wrong.Add(settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections))
	if err := wrong.Err(); err != nil {
		return nil, err
	}
	o, err := o.WithDefaults("memcached", defaultTimeout, cfg.Write != WriteConfig{})
	if err != nil {
		return nil, err
	}
	if err := cfg.Write.check(); err != nil {
		return nil, err
	}
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	s := &Source{cfg: cfg, options: o, client: memcache.NewFromSelector(newServers(cfg.Servers))}
	s.client.Timeout = o.Timeout
	s.client.MaxIdleConns = cfg.Connections
	s.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return limitConn(c, o, &s.terms), nil
	}
	return s, nil
}

// Close closes idle connections.
func (s *Source) Close() error { return s.client.Close() }

const malformed = "memcached takes at most 250 bytes, without spaces and control characters"

// Load gets the value of one key. An absent key gives ErrAbsent.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	if err := ctx.Err(); err != nil {
		return loader.Value{}, err
	}
	name := s.cfg.KeyPrefix + string(key)
	var item *memcache.Item
	err := retryEndedConn(func() (err error) {
		item, err = s.client.Get(name)
		return err
	})
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return loader.Value{}, loader.ErrAbsent
	case errors.Is(err, memcache.ErrMalformedKey):
		return loader.Value{}, fmt.Errorf("%w: %s", loader.ErrBadKey, malformed)
	case errors.Is(err, errTooLong), err == nil && len(item.Value) > s.options.MaxValue:
		return loader.Value{}, fmt.Errorf("%w: memcached origin: more than %d bytes",
			loader.ErrTooLarge, s.options.MaxValue)
	case err != nil:
		return loader.Value{}, fmt.Errorf("memcached origin: %w", err)
	case item.Key != name:
		return loader.Value{}, fmt.Errorf("memcached origin: the answer is about another key, %.250q", item.Key)
	}
	return loader.Value{Bytes: item.Value, Flags: item.Flags}, nil
}
