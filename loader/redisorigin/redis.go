// Package redisorigin loads strings, with their remaining time to live, from an existing
// Redis or Valkey.
//
// The inputs are an address and a prefix for keys; the output is the bytes of the
// string. A value above the limit ends the connection. A key of another type is refused.
// GET and PTTL are all that a load needs, and with IgnoreTTL GET: no transaction, which
// proxies do not know.
//
// Writes set and delete keys with the prefix. A list has all keys with the
// prefix, of any type.
//
// The package starts no goroutine. It neither follows cluster redirects nor subscribes.
package redisorigin

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gomodule/redigo/redis"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
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
	DB int `yaml:"db" answers:"yes"`
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
	KeyPrefix string `yaml:"key_prefix" answers:"yes"`
	// IgnoreTTL takes the namespace's TTL instead of the key's remaining time, so that a load
	// needs GET alone, and no PTTL.
	IgnoreTTL bool `yaml:"ignore_ttl" answers:"yes"`
	// Connections is the largest number of connections. Default: 64. Bounds: up to 65536.
	Connections int `yaml:"connections"`

	Write WriteConfig `yaml:",inline"`
}

const (
	defaultConnections = 64
	defaultTimeout     = time.Second // of a load, including connecting
)

// Kind returns "redis".
func (Config) Kind() string { return "redis" }

// Descriptors returns the maximum number of file descriptors that calls use.
func (cfg Config) Descriptors() int { return cmp.Or(cfg.Connections, defaultConnections) }

// Open opens the origin. It connects at the first load.
func (cfg Config) Open(o loader.OriginOptions) (*loader.Origin, error) {
	s, err := New(cfg, o)
	if err != nil {
		return nil, err
	}
	return &loader.Origin{
		Source: s, Writer: s, List: s.NewLister, Probe: true, Close: s.Close, Secrets: []string{s.cfg.Password},
	}, nil
}

// Source loads values from the server, and writes them there. It is safe for concurrent use.
type Source struct {
	cfg     Config
	options loader.OriginOptions
	tls     *tls.Config // nil: not encrypted
	pool    *redis.Pool
	terms   loader.Terms

	mu     sync.Mutex
	closed bool
	calls  sync.WaitGroup // that have, or wait for, a place in the pool; added to under mu
}

// New validates the configuration. The source connects at the first load.
func New(cfg Config, o loader.OriginOptions) (*Source, error) {
	wrong := []error{
		settings.Address("address", cfg.Address),
		settings.Bounded("db", cfg.DB, 0, 1<<16),
		settings.Bounded("connections", cfg.Connections, 0, loader.MaxConnections),
	}
	if cfg.Password == "" {
		var err error
		cfg.Password, err = settings.Secret("password", cfg.PasswordFile, cfg.PasswordEnv)
		wrong = append(wrong, err)
	}
	encrypted, err := cfg.tlsConfig()
	if err := errors.Join(append(wrong, err)...); err != nil {
		return nil, err
	}
	if o, err = o.WithDefaults("redis", defaultTimeout, cfg.Write != WriteConfig{}); err != nil {
		return nil, err
	}
	if err := cfg.Write.check(); err != nil {
		return nil, err
	}
	cfg.Connections = cmp.Or(cfg.Connections, defaultConnections)
	s := &Source{cfg: cfg, options: o, tls: encrypted}
	s.pool = &redis.Pool{
		DialContext:  func(ctx context.Context) (redis.Conn, error) { return s.dial(ctx) },
		MaxActive:    cfg.Connections,
		MaxIdle:      cfg.Connections,
		IdleTimeout:  loader.MaxConnAge,
		Wait:         true,
		TestOnBorrow: func(c redis.Conn, _ time.Time) error { return c.(*conn).check() },
	}
	return s, nil
}

// Close closes the connections. Calls in progress end first.
func (s *Source) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.calls.Wait() // the pool panics if it is closed while a call waits, and if one comes later
	return s.pool.Close()
}

var errClosed = errors.New("the origin is closed")

// get returns a connection of the pool. The caller must call put.
func (s *Source) get(ctx context.Context) (redis.Conn, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	s.calls.Add(1)
	s.mu.Unlock()
	c, err := s.pool.GetContext(ctx)
	if err != nil {
		s.calls.Done()
		return nil, err
	}
	return c, nil
}

func (s *Source) put(c redis.Conn) {
	_ = c.Close() // its error is that of the call
	s.calls.Done()
}

// Load gets the value of one key. An absent key gives ErrAbsent. PTTL is asked for before and
// after the value, and the shorter time is taken: another client may write the key in between.
func (s *Source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	c, err := s.get(ctx)
	if err != nil {
		return loader.Value{}, s.failed(err)
	}
	defer s.put(c)
	name, commands := s.cfg.KeyPrefix+string(key), []string{"PTTL", "GET", "PTTL"}
	if s.cfg.IgnoreTTL {
		commands = commands[1:2]
	}
	for _, command := range commands {
		_ = c.Send(command, name) // its error is also that of DoContext
	}
	replies, err := redis.Values(redis.DoContext(c, ctx, ""))
	if err == nil && len(replies) != len(commands) {
		err = fmt.Errorf("%d replies to %d commands", len(replies), len(commands))
	}
	var v loader.Value
	if err == nil {
		v, err = s.value(replies)
	}
	switch {
	case err == nil && len(v.Bytes) > s.options.MaxValue, errors.Is(err, errTooLarge):
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: more than %d bytes",
			loader.ErrTooLarge, s.cfg.Address, s.options.MaxValue)
	case code(err) == "WRONGTYPE":
		return loader.Value{}, fmt.Errorf("%w: redis origin %s: the key is not a string",
			loader.ErrPermanent, s.cfg.Address)
	case err != nil && !errors.Is(err, loader.ErrAbsent):
		return loader.Value{}, s.failed(err)
	}
	return v, err
}

// failed returns the error of a call. The server's refusal of this host is marked as such, and that of
// one key as such, which a user with rights to some keys meets.
func (s *Source) failed(err error) error {
	if refusesKey(err) {
		return fmt.Errorf("%w: %w", loader.ErrPermanent, s.named(err))
	}
	if errors.Is(err, errRefusedLogin) || slices.Contains([]string{"NOAUTH", "NOPERM", "WRONGPASS"}, code(err)) {
		return fmt.Errorf("%w: %w", loader.ErrRefused, s.named(err))
	}
	return s.named(err)
}

// refusesKey reports whether the server lets the user run the command, and not with this key. Redis 6 has
// other words for it than later ones.
func refusesKey(err error) bool {
	return code(err) == "NOPERM" && (strings.Contains(err.Error(), "No permissions to access a key") ||
		strings.Contains(err.Error(), "one of the keys used as arguments"))
}

// value returns what the replies to GET, or to PTTL, GET and PTTL, say.
func (s *Source) value(replies []any) (v loader.Value, err error) {
	b, err := redis.Bytes(replies[len(replies)/2], nil)
	switch {
	case errors.Is(err, redis.ErrNil):
		return v, loader.ErrAbsent
	case err != nil:
		return v, err
	}
	v.Bytes = b
	for i := 0; i < len(replies) && !s.cfg.IgnoreTTL; i += 2 {
		left, err := redis.Int64(replies[i], nil)
		switch {
		case code(err) == "NOPERM" || code(err) == "ERR":
			return v, fmt.Errorf("PTTL: %w: allow it, or set ignore_ttl, and a load needs only GET", err)
		case err != nil:
			return v, err
		case left == -2 && i > 0: // the key has gone
			return v, loader.ErrAbsent
		case left < 0:
			continue
		}
		ttl := time.Duration(max(1, min(left, math.MaxInt64/int64(time.Millisecond)))) * time.Millisecond
		if v.TTL == 0 || ttl < v.TTL {
			v.TTL = ttl
		}
	}
	return v, nil
}

// named returns an error with the server's address, and a remedy that the server does not name.
func (s *Source) named(err error) error {
	if moved := code(err); moved == "MOVED" || moved == "ASK" {
		err = fmt.Errorf("%w: redirects are not followed: give the address of a server, or of a proxy, "+
			"that answers for all keys", err)
	}
	return fmt.Errorf("redis origin %s: %w", s.cfg.Address, err)
}

// maxClients stands for an answer that has only the code ERR: the server takes no more connections.
const maxClients = "MAXCLIENTS"

// code returns the first word of the server's error; empty: err is no answer.
func code(err error) string {
	var answer redis.Error
	if !errors.As(err, &answer) {
		return ""
	}
	if strings.HasPrefix(answer.Error(), "ERR max number of clients") {
		return maxClients
	}
	word, _, _ := strings.Cut(answer.Error(), " ")
	return word
}
