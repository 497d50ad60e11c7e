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
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/bradfitz/gomemcache/memcache"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Config describes the servers.
type Config struct {
	Servers     []string      // host:port, or the path of a socket; needed
	KeyPrefix   string        // before each key; both together at most 250 bytes
	Timeout     time.Duration // for connecting, and again for the answer; zero: 500 ms
	MaxValue    int           // bytes; zero: 8 MiB
	Connections int           // kept idle, per server; zero: 64
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
	if cfg.Timeout < 0 || cfg.MaxValue < 0 || cfg.Connections < 0 {
		return nil, fmt.Errorf("memcached origin: timeout %v, value %d, connections %d: give zero for the defaults, or more", cfg.Timeout, cfg.MaxValue, cfg.Connections)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 500 * time.Millisecond
	}
	if cfg.MaxValue == 0 {
		cfg.MaxValue = 8 << 20
	}
	if cfg.Connections == 0 {
		cfg.Connections = 64
	}
	list, err := newServers(cfg.Servers)
	if err != nil {
		return nil, fmt.Errorf("memcached origin: %w", err)
	}
	s := &Source{cfg: cfg, client: memcache.NewFromSelector(list)}
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
