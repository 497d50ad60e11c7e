// Package redisorigin loads values from an existing Redis or Valkey: strings,
// with their remaining time to live.
//
// Input is an address and a prefix for keys, output the bytes of the string. A
// value beyond the limit never leaves the server. A key of another type is
// refused.
//
// A Writer sets and deletes such keys, a Lister gives all that have the prefix,
// of any type.
//
// It starts no goroutine of its own; go-redis has none left after Close. go-redis
// also writes failed dials to stderr, process-wide, unless its package logging is
// told otherwise. It neither follows cluster redirects nor subscribes.
package redisorigin

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cachesidecar/cachesidecar/loader"
)

// Config describes the server.
type Config struct {
	Address     string        // host:port, or the path of a socket; needed
	Username    string        // empty: none
	Password    string        // empty: none
	DB          int           // number of the database
	TLS         *tls.Config   // nil: none
	KeyPrefix   string        // before each key
	IgnoreTTL   bool          // else the key's remaining time is the value's
	Timeout     time.Duration // of a load, connecting included; zero: 1 s
	MaxValue    int           // bytes; zero: 8 MiB
	Connections int           // at most; zero: 64
}

// Source is the origin.
type Source struct {
	cfg    Config
	client *redis.Client
}

// New checks the configuration. It connects at the first load.
func New(cfg Config) (*Source, error) {
	if cfg.Address == "" {
		return nil, errors.New("redis origin: no address: give host:port or the path of a socket")
	}
	if cfg.Timeout < 0 || cfg.MaxValue < 0 || cfg.MaxValue > math.MaxInt-keysRoom || cfg.Connections < 0 || cfg.DB < 0 {
		return nil, fmt.Errorf("redis origin: timeout %v, value %d, connections %d, database %d: give zero for the defaults, or more", cfg.Timeout, cfg.MaxValue, cfg.Connections, cfg.DB)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Second
	}
	if cfg.MaxValue == 0 {
		cfg.MaxValue = 8 << 20
	}
	if cfg.Connections == 0 {
		cfg.Connections = 64
	}
	return &Source{cfg: cfg, client: newClient(cfg, cfg.Connections)}, nil
}

func newClient(cfg Config, connections int) *redis.Client {
	network := "tcp"
	if strings.HasPrefix(cfg.Address, "/") {
		network = "unix"
	}
	opts := &redis.Options{
		Network: network, Addr: cfg.Address,
		Username: cfg.Username, Password: cfg.Password, DB: cfg.DB, TLSConfig: cfg.TLS,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, ContextTimeoutEnabled: true,
		PoolSize: connections, MaxActiveConns: connections, PipelinePoolSize: -1,
		// Retries are the guard's, within its budget.
		MaxRetries: -1, DialerRetries: 1,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	dial := redis.NewDialer(opts)
	opts.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return limit(c, cfg.MaxValue), nil
	}
	return redis.NewClient(opts)
}

// Close ends the connections.
func (s *Source) Close() error { return s.client.Close() }

// Load gets one key. GETRANGE bounds what is sent, but says "" of a key that
// does not exist; PTTL in the same transaction tells that from an empty string.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	name := s.cfg.KeyPrefix + string(key)
	var value *redis.StringCmd
	var left *redis.DurationCmd
	_, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		value = p.GetRange(ctx, name, 0, int64(s.cfg.MaxValue))
		left = p.PTTL(ctx, name)
		return nil
	})
	switch {
	case err != nil && redis.HasErrorPrefix(err, "WRONGTYPE"):
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: the key is not a string", loader.ErrPermanent, s.cfg.Address)
	case err != nil:
		return loader.Value{}, fmt.Errorf("redis origin %s: %w", s.cfg.Address, err)
	case left.Val() == -2: // as PTTL says "no such key"
		return loader.Value{}, loader.ErrAbsent
	}
	b := []byte(value.Val())
	if len(b) > s.cfg.MaxValue {
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: more than %d bytes", loader.ErrTooLarge, s.cfg.Address, s.cfg.MaxValue)
	}
	v := loader.Value{Bytes: b}
	if left.Val() >= 0 && !s.cfg.IgnoreTTL {
		v.TTL = max(left.Val(), time.Millisecond)
	}
	return v, nil
}
