package sidecar

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// Origin is where a namespace's missing values are loaded from: exactly one of
// these.
type Origin struct {
	HTTP      *HTTPOrigin      `yaml:"http"`
	Postgres  *PostgresOrigin  `yaml:"postgres"`
	Redis     *RedisOrigin     `yaml:"redis"`
	Memcached *MemcachedOrigin `yaml:"memcached"`
	Exec      *ExecOrigin      `yaml:"exec"`
}

// HTTPOrigin is a web server; see package loader/httporigin.
type HTTPOrigin struct {
	URL    string `yaml:"url"`    // with {key} in its path or query; needed
	Method string `yaml:"method"` // default GET
	// Headers are sent with every request, and HeaderFiles too: the value is what
	// the file holds, as secrets have to be given.
	Headers      map[string]string `yaml:"headers"`
	HeaderFiles  map[string]string `yaml:"header_files"`
	Absent       []int             `yaml:"absent"`        // statuses that say "there is none"; default 404 and 410
	CacheControl bool              `yaml:"cache_control"` // the answer's max-age is the TTL, and no-store is heeded
	Connections  int               `yaml:"connections"`   // kept, and at most open; default 64

	StoreMethod  string `yaml:"store_method"`  // of write_through; default PUT
	DeleteMethod string `yaml:"delete_method"` // default DELETE
	ContentType  string `yaml:"content_type"`  // of what is stored; default application/octet-stream
}

// PostgresOrigin is a PostgreSQL database; see package loader/postgres.
type PostgresOrigin struct {
	DSNFile     string `yaml:"dsn_file"`    // a file that holds the DSN; or
	DSNEnv      string `yaml:"dsn_env"`     // the environment variable that does; one is needed
	Query       string `yaml:"query"`       // with $1, the key; needed
	Format      string `yaml:"format"`      // column, json or msgpack; default column
	Connections int    `yaml:"connections"` // at most; default 16

	Store  string `yaml:"store"`  // of write_through, which needs it, with $1, the key, and $2, the value
	Delete string `yaml:"delete"` // of write_through, which needs it, with $1, the key
}

// RedisOrigin is a Redis or Valkey server; see package loader/redisorigin.
type RedisOrigin struct {
	Address      string `yaml:"address"`       // host:port, or the path of a socket; needed
	Username     string `yaml:"username"`      // default: none
	PasswordFile string `yaml:"password_file"` // a file that holds the password; or
	PasswordEnv  string `yaml:"password_env"`  // the environment variable that does; default: none
	DB           int    `yaml:"db"`            // number of the database
	TLS          bool   `yaml:"tls"`           // encrypted, the server's certificate is checked
	TLSCAFile    string `yaml:"tls_ca_file"`   // certificates (PEM) that vouch for the server's; default: the machine's
	TLSCertFile  string `yaml:"tls_cert_file"` // this client's certificate (PEM); default: none
	TLSKeyFile   string `yaml:"tls_key_file"`  // and its key
	KeyPrefix    string `yaml:"key_prefix"`    // before each key
	IgnoreTTL    bool   `yaml:"ignore_ttl"`    // else the key's remaining time is the value's
	Connections  int    `yaml:"connections"`   // at most; default 64

	StoreTTL time.Duration `yaml:"store_ttl"` // of what is written through; default: no expiry
}

// MemcachedOrigin is one or several memcached servers; see package
// loader/memcached.
type MemcachedOrigin struct {
	Servers     []string `yaml:"servers"`     // host:port, or the path of a socket; needed
	KeyPrefix   string   `yaml:"key_prefix"`  // before each key
	Connections int      `yaml:"connections"` // kept, per server; default 64

	StoreTTL time.Duration `yaml:"store_ttl"` // of what is written through, in whole seconds up to 30 days; default: no expiry
}

// ExecOrigin is a command that gets the key as its last argument; see package
// loader/execorigin.
type ExecOrigin struct {
	Command []string `yaml:"command"` // program and first arguments; needed
	// Env has variables beside PATH and HOME: NAME=value, or NAME for this
	// process's own, as secrets have to be given.
	Env    []string `yaml:"env"`
	Absent int      `yaml:"absent"` // the exit status that says "there is none"; default 1

	Store   []string `yaml:"store"`   // the command of write_through, which needs it: the value is its input
	Delete  []string `yaml:"delete"`  // and the one that deletes
	Refused int      `yaml:"refused"` // the exit status of both that says "nothing has changed"; default: none
}

// opened is an origin that can be asked.
type opened struct {
	source loader.Source
	hide   secrets                           // that no error of it may show
	list   func(List) (loader.Lister, error) // nil: it cannot list its keys
	write  func() (loader.Writer, error)
	writes bool // there are settings of writes
	check  func(context.Context) error
	close  func() error
}

// also has an origin asked too what a part of it asks, if it can be asked.
func (o *opened) also(part any) {
	c, ok := part.(interface{ Check(context.Context) error })
	if !ok {
		return
	}
	before := o.check
	o.check = func(ctx context.Context) error {
		if before != nil {
			if err := before(ctx); err != nil {
				return err
			}
		}
		return o.hide.hide(c.Check(ctx))
	}
}

// kind is one kind of origin, as it is configured.
type kind struct {
	name string
	open func(l Limits, maxValue int) (opened, error)
}

// given lists the kinds that are configured.
func (o *Origin) given() (list []kind) {
	if o.HTTP != nil {
		list = append(list, kind{"http", o.HTTP.open})
	}
	if o.Postgres != nil {
		list = append(list, kind{"postgres", o.Postgres.open})
	}
	if o.Redis != nil {
		list = append(list, kind{"redis", o.Redis.open})
	}
	if o.Memcached != nil {
		list = append(list, kind{"memcached", o.Memcached.open})
	}
	if o.Exec != nil {
		list = append(list, kind{"exec", o.Exec.open})
	}
	return list
}

func (o *Origin) check() error {
	if o == nil {
		return nil
	}
	switch list := o.given(); len(list) {
	case 0:
		return errors.New("origin: nothing is given: give http, postgres, redis, memcached or exec, with its settings")
	case 1:
		return nil
	default:
		return fmt.Errorf("origin: %s and %s are given: give one of them", list[0].name, list[1].name)
	}
}

// maxConnections of an origin.
const maxOriginConnections = 1 << 16

func (h *HTTPOrigin) open(l Limits, maxValue int) (o opened, err error) {
	// In an error a URL shows neither its user nor its query, which may be secrets.
	if u, err := url.Parse(h.URL); err == nil && u.User != nil {
		return o, errors.New("url: it has a user or password: leave them out, and give them as a header Authorization in header_files")
	}
	for _, code := range h.Absent {
		if err := bounded("absent", code, 200, 599); err != nil {
			return o, err
		}
	}
	if err := bounded("connections", h.Connections, 0, maxOriginConnections); err != nil {
		return o, err
	}
	header := http.Header{}
	var hide secrets
	for _, name := range slices.Sorted(maps.Keys(h.Headers)) {
		if slices.Contains(secretHeaders, http.CanonicalHeaderKey(name)) {
			return o, fmt.Errorf("headers: %s is a secret: give the path of a file that holds it, in header_files", name)
		}
		if err := addHeader(header, "headers", name, h.Headers[name]); err != nil {
			return o, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(h.HeaderFiles)) {
		value, err := secretFile("header_files: "+name, h.HeaderFiles[name])
		if err != nil {
			return o, err
		}
		if err := addHeader(header, "header_files", name, value); err != nil {
			return o, err
		}
		hide = append(hide, value)
	}
	s, err := httporigin.New(httporigin.Config{
		URL: h.URL, Method: h.Method, Header: header, Timeout: l.Timeout, Absent: h.Absent,
		CacheControl: h.CacheControl, MaxBody: int64(maxValue), Connections: h.Connections,
	})
	if err != nil {
		return o, err
	}
	return opened{
		source: s, hide: hide, list: listHTTP(s),
		write: h.writer(s), writes: h.StoreMethod != "" || h.DeleteMethod != "" || h.ContentType != "",
		close: func() error { s.Close(); return nil },
	}, nil
}

// secretHeaders may not stand in the configuration file.
var secretHeaders = []string{"Authorization", "Cookie", "Proxy-Authorization"}

func addHeader(h http.Header, setting, name, value string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return fmt.Errorf("%s: %q is no header's name: give letters, digits and dashes", setting, name)
	case !httpguts.ValidHeaderFieldValue(value):
		return fmt.Errorf("%s: %s: the value has line breaks or other control characters: leave them out", setting, name)
	case h.Get(name) != "":
		return fmt.Errorf("%s: %s is there already: leave out one of them", setting, name)
	}
	h.Set(name, value)
	return nil
}

func (p *PostgresOrigin) open(l Limits, maxValue int) (o opened, err error) {
	dsn, err := secret("dsn", p.DSNFile, p.DSNEnv)
	if err != nil {
		return o, err
	}
	if dsn == "" {
		return o, errors.New("there is no DSN: give dsn_file, the path of a file that holds it, or dsn_env, the name of a variable")
	}
	if err := bounded("connections", p.Connections, 0, maxOriginConnections); err != nil {
		return o, err
	}
	s, err := postgres.New(postgres.Config{
		DSN: dsn, Query: p.Query, Format: postgres.Format(p.Format), Timeout: l.Timeout,
		MaxValue: maxValue, Connections: p.Connections,
	})
	if err != nil {
		return o, err
	}
	hide := secrets{dsn, s.Password()}
	return opened{
		source: s, hide: hide, list: listPostgres(s),
		write: p.writer(s), writes: p.Store != "" || p.Delete != "",
		check: func(ctx context.Context) error { return hide.hide(s.Check(ctx)) },
		close: func() error { s.Close(); return nil },
	}, nil
}

func (r *RedisOrigin) open(l Limits, maxValue int) (o opened, err error) {
	password, err := secret("password", r.PasswordFile, r.PasswordEnv)
	if err != nil {
		return o, err
	}
	if err := address("address", r.Address); err != nil {
		return o, err
	}
	if err := bounded("db", r.DB, 0, 1<<16); err != nil {
		return o, err
	}
	if err := bounded("connections", r.Connections, 0, maxOriginConnections); err != nil {
		return o, err
	}
	tlsConfig, err := r.tls()
	if err != nil {
		return o, err
	}
	s, err := redisorigin.New(redisorigin.Config{
		Address: r.Address, Username: r.Username, Password: password, DB: r.DB, TLS: tlsConfig,
		KeyPrefix: r.KeyPrefix, IgnoreTTL: r.IgnoreTTL, Timeout: l.Timeout, MaxValue: maxValue, Connections: r.Connections,
	})
	if err != nil {
		return o, err
	}
	return opened{
		source: s, hide: secrets{password}, list: listRedis(s),
		write: r.writer(s), writes: r.StoreTTL != 0, close: s.Close,
	}, nil
}

func (m *MemcachedOrigin) open(l Limits, maxValue int) (o opened, err error) {
	for _, server := range m.Servers {
		if err := address("servers", server); err != nil {
			return o, err
		}
	}
	if err := bounded("connections", m.Connections, 0, maxOriginConnections); err != nil {
		return o, err
	}
	s, err := memcached.New(memcached.Config{
		Servers: m.Servers, KeyPrefix: m.KeyPrefix, Timeout: l.Timeout, MaxValue: maxValue, Connections: m.Connections,
	})
	if err != nil {
		return o, err
	}
	return opened{source: s, write: m.writer(s), writes: m.StoreTTL != 0, close: s.Close}, nil
}

func (e *ExecOrigin) open(l Limits, maxValue int) (o opened, err error) {
	var hide secrets
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for _, v := range e.Env {
		if name, _, ok := strings.Cut(v, "="); ok && !variableName.MatchString(name) {
			return o, errors.New("env: " + noVariable)
		} else if ok {
			env = append(env, v)
			continue
		}
		value, err := secretEnv("env", v)
		if err != nil {
			return o, err
		}
		env, hide = append(env, v+"="+value), append(hide, value)
	}
	s, err := execorigin.New(execorigin.Config{Command: e.Command, Env: env, Timeout: l.Timeout, Absent: e.Absent, MaxOutput: maxValue})
	if err != nil {
		return o, err
	}
	return opened{
		source: s, hide: hide, list: listExec(s),
		write: e.writer(s), writes: len(e.Store) > 0 || len(e.Delete) > 0 || e.Refused != 0,
		close: func() error { return nil },
	}, nil
}

// address checks host:port, or the path of a socket. It does not show what it
// refuses: people give URLs with a password here.
func address(setting, text string) error {
	if strings.HasPrefix(text, "/") {
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	n, e := strconv.ParseUint(port, 10, 16)
	if err != nil || e != nil || n == 0 || host == "" || strings.ContainsAny(host, "@/") {
		return fmt.Errorf("%s: give host:port, or the path of a socket, without user and password", setting)
	}
	return nil
}
