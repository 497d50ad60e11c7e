// Package memcached loads values from an existing memcached, with their flags.
//
// Input is a list of servers, among which keys are spread as gomemcache does
// (CRC32 modulo their number), and a prefix for keys; output is the item. Its
// remaining lifetime cannot be asked for in the classic protocol, so it is the
// namespace's.
//
// A Writer sets and deletes items. Keys cannot be listed.
//
// It starts no goroutine. What has begun ends with its answer or the timeout,
// not with its context: the client knows none.
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

// Config is the settings of the servers.
type Config struct {
	Servers     []string `yaml:"servers"`     // host:port, or the path of a socket; needed
	KeyPrefix   string   `yaml:"key_prefix"`  // before each key; both together at most 250 bytes
	Connections int      `yaml:"connections"` // kept idle, per server; default 64

	Write WriteConfig `yaml:",inline"`

	Timeout  time.Duration `yaml:"-"` // for connecting, and again for the answer; zero: 500 ms
	MaxValue int           `yaml:"-"` // bytes; zero: 8 MiB
}

const defaultConnections = 64

// Kind returns "memcached".
func (Config) Kind() string { return "memcached" }

// Descriptors returns how many file descriptors the calls use at most.
func (c Config) Descriptors() int { return cmp.Or(c.Connections, defaultConnections) * len(c.Servers) }

// Open opens the origin. It connects at the first load.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	c.Timeout, c.MaxValue = o.Timeout, o.MaxValue
	if err := o.CheckWrites(c.Write != WriteConfig{}); err != nil {
		return nil, err
	}
	s, err := New(c)
	if err != nil {
		return nil, err
	}
	opened := &loader.Origin{Source: s, Close: s.Close}
	if o.WriteThrough {
		if opened.Writer, err = s.NewWriter(c.Write); err != nil {
			_ = s.Close() // nothing is lost
			return nil, err
		}
	}
	return opened, nil
}

// Source is the origin.
type Source struct {
	cfg    Config
	client *memcache.Client
}

// New checks the configuration. It connects at the first load.
func New(cfg Config) (*Source, error) {
	if len(cfg.Servers) == 0 {
		return nil, errors.New("memcached origin: no servers: give host:port or the path of a socket")
	}
	for _, server := range cfg.Servers {
		if err := settings.Address("servers", server); err != nil {
			return nil, err
		}
	}
	if err := settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections); err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 || cfg.MaxValue < 0 {
		return nil, fmt.Errorf("memcached origin: timeout %v, value %d: give zero for the defaults, or more", cfg.Timeout, cfg.MaxValue)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, 500*time.Millisecond)
	cfg.MaxValue = cmp.Or(cfg.MaxValue, 8<<20)
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	s := &Source{cfg: cfg, client: memcache.NewFromSelector(newServers(cfg.Servers))}
	s.client.Timeout = cfg.Timeout
	s.client.MaxIdleConns = cfg.Connections
	s.client.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &limitedConn{Conn: c, most: cfg.MaxValue, timeout: cfg.Timeout}, nil
	}
	return s, nil
}

// Close ends idle connections.
func (s *Source) Close() error { return s.client.Close() }

const malformed = "memcached takes at most 250 bytes, without spaces and control characters"

// Load gets one key.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	if err := ctx.Err(); err != nil {
		return loader.Value{}, err
	}
	name := s.cfg.KeyPrefix + string(key)
	item, err := s.client.Get(name)
	switch {
	case errors.Is(err, memcache.ErrCacheMiss):
		return loader.Value{}, loader.ErrAbsent
	case errors.Is(err, memcache.ErrMalformedKey):
		return loader.Value{}, fmt.Errorf("%w: %s", loader.ErrBadKey, malformed)
	case errors.Is(err, errTooLong), err == nil && len(item.Value) > s.cfg.MaxValue:
		return loader.Value{}, fmt.Errorf("%w: memcached origin: more than %d bytes", loader.ErrTooLarge, s.cfg.MaxValue)
	case err != nil:
		return loader.Value{}, fmt.Errorf("memcached origin: %w", err)
	case item.Key != name:
		return loader.Value{}, fmt.Errorf("memcached origin: the answer is about another key, %.250q", item.Key)
	}
	return loader.Value{Bytes: item.Value, Flags: item.Flags}, nil
}
