// Package redisorigin loads strings, with their remaining time to live, from an existing
// Redis or Valkey.
//
// The inputs are an address and a prefix for keys; the output is the bytes of the
// string. A value above the limit is not sent by the server. A key of another type is
// refused.
//
// A Writer sets and deletes keys with the prefix. A Lister lists all keys with the
// prefix, of any type.
//
// The package starts no goroutine itself; go-redis has none left after Close. go-redis
// also writes failed dials to stderr, for the whole process, unless its package logging
// is configured otherwise. The package neither follows cluster redirects nor subscribes.
package redisorigin

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/internal/origin"
)

// Config has the settings of the server.
type Config struct {
	// Address is the address of the server. Form: host:port, or the path of a socket.
	// Required.
	Address string `yaml:"address"`
	// Username is the name of the user. Default: none.
	Username string `yaml:"username"`

	// At most one of these three is given. Default: no password.
	Password string `yaml:"-"`
	// PasswordFile is a file that contains the password. Form: path. Default: none.
	PasswordFile string `yaml:"password_file"`
	// PasswordEnv is an environment variable that contains the password. Form: name.
	// Default: none.
	PasswordEnv string `yaml:"password_env"`

	// DB is the number of the database. Default: 0. Bounds: up to 65536.
	DB int `yaml:"db"`
	// TLS encrypts the connections, and verifies the server's certificate.
	TLS bool `yaml:"tls"`
	// TLSCAFile is a file with the authorities (PEM) of the server's certificate. Form:
	// path. Default: the machine's.
	TLSCAFile string `yaml:"tls_ca_file"`
	// TLSCertFile is a file with this client's certificate (PEM). Form: path. Default: none.
	TLSCertFile string `yaml:"tls_cert_file"`
	// TLSKeyFile is a file with the key of that certificate (PEM). Form: path. Default:
	// none.
	TLSKeyFile string `yaml:"tls_key_file"`
	// KeyPrefix is what stands before each key. Default: none.
	KeyPrefix string `yaml:"key_prefix"`
	// IgnoreTTL takes the namespace's TTL instead of the key's remaining time.
	IgnoreTTL bool `yaml:"ignore_ttl"`
	// Connections is the largest number of connections. Default: 64. Bounds: up to 65536.
	Connections int `yaml:"connections"`

	Write WriteConfig `yaml:",inline"`

	Timeout  time.Duration `yaml:"-"` // of a load, including connecting; zero: 1 s
	MaxValue int           `yaml:"-"` // bytes; zero: 8 MiB
}

const defaultConnections = 64

// Kind returns "redis".
func (Config) Kind() string { return "redis" }

// Descriptors returns the maximum number of file descriptors that calls use.
func (c Config) Descriptors() int { return cmp.Or(c.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (c Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	c.Timeout, c.MaxValue = o.Timeout, o.MaxValue
	return origin.Open(o, c.Write != WriteConfig{},
		func() (*Source, error) { return New(c) },
		func(s *Source) (*Writer, error) { return s.NewWriter(c.Write) },
		func(s *Source) *loader.Origin {
			return &loader.Origin{
				List:    func(l loader.List) (loader.Lister, error) { return s.NewLister(l) },
				Close:   s.Close,
				Secrets: []string{s.cfg.Password},
			}
		})
}

// Source loads values from the server. It is safe for concurrent use.
type Source struct {
	cfg    Config
	tls    *tls.Config // nil: not encrypted
	client *redis.Client
}

// New validates the configuration. The source connects at the first load.
func New(cfg Config) (*Source, error) {
	if err := cmp.Or(
		settings.Address("address", cfg.Address),
		settings.Bounded("db", cfg.DB, 0, 1<<16),
		settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections),
	); err != nil {
		return nil, err
	}
	if err := origin.Limits("redis", &cfg.Timeout, &cfg.MaxValue, time.Second, math.MaxInt-keysRoom); err != nil {
		return nil, err
	}
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	if cfg.Password == "" {
		var err error
		if cfg.Password, err = settings.Secret("password", cfg.PasswordFile, cfg.PasswordEnv); err != nil {
			return nil, err
		}
	}
	encrypted, err := cfg.tlsConfig()
	if err != nil {
		return nil, err
	}
	s := &Source{cfg: cfg, tls: encrypted}
	s.client = s.newClient(cfg.Connections)
	return s, nil
}

func (s *Source) newClient(connections int) *redis.Client {
	cfg := &s.cfg
	network := "tcp"
	if strings.HasPrefix(cfg.Address, "/") {
		network = "unix"
	}
	opts := &redis.Options{
		Network: network, Addr: cfg.Address,
		Username: cfg.Username, Password: cfg.Password, DB: cfg.DB, TLSConfig: s.tls,
		DialTimeout: cfg.Timeout, ReadTimeout: cfg.Timeout, WriteTimeout: cfg.Timeout, ContextTimeoutEnabled: true,
		PoolSize: connections, MaxActiveConns: connections, PipelinePoolSize: -1,
		// Guard makes the retries, within its budget.
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

// Close closes the connections.
func (s *Source) Close() error { return s.client.Close() }

// Load gets the value of one key. GETRANGE limits the number of bytes sent, but returns
// "" for a key that does not exist. PTTL in the same transaction distinguishes an absent
// key from an empty string.
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
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: the key is not a string",
			loader.ErrPermanent, s.cfg.Address)
	case err != nil:
		return loader.Value{}, fmt.Errorf("redis origin %s: %w", s.cfg.Address, err)
	case left.Val() == -2: // "no such key" in PTTL
		return loader.Value{}, loader.ErrAbsent
	}
	b := []byte(value.Val())
	if len(b) > s.cfg.MaxValue {
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: more than %d bytes",
			loader.ErrTooLarge, s.cfg.Address, s.cfg.MaxValue)
	}
	v := loader.Value{Bytes: b}
	if left.Val() >= 0 && !s.cfg.IgnoreTTL {
		v.TTL = max(left.Val(), time.Millisecond)
	}
	return v, nil
}
