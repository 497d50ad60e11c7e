package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

func ptr[T any](v T) *T { return &v }

// own returns an origin in the program itself.
func own(load loader.SourceFunc) loader.Custom { return loader.Custom{Source: load} }

var aCustom = loader.Custom{Source: loader.SourceFunc(aSource)}

func aSource(context.Context, []byte) (loader.Value, error) { return loader.Value{}, nil }

// aStore lists keys and takes writes; nothing calls it.
type aStore struct {
	loader.Lister
	loader.Writer
}

func TestNamespaceDefaults(t *testing.T) {
	n := Namespace{}.spec()
	want := namespaces.Policy{NegativeTTL: 5 * time.Second, Beta: 1}
	if n.TTL != time.Hour || n.StaleLimit != time.Minute || n.Policy != want || n.Jitter != 0.1 || n.ReplicaLag != 0 || n.LeaseTime != 10*time.Second {
		t.Errorf("%+v", n)
	}
	// Settings to which zero means something can be set to zero.
	n = Namespace{DefaultTTL: ptr(time.Duration(0)), StaleLimit: ptr(time.Duration(0)), NegativeTTL: ptr(time.Duration(0)), TTLJitter: ptr(0.0), RefreshEarly: ptr(0.0)}.spec()
	if n.TTL != 0 || n.StaleLimit != 0 || n.Policy != (namespaces.Policy{}) || n.Jitter != 0 {
		t.Errorf("%+v", n)
	}
}

func TestNamespaceRefused(t *testing.T) {
	http := &httporigin.Config{URL: "http://h/{key}"}
	redisOrigin := &redisorigin.Config{Address: "h:1"}
	memcachedOrigin := &memcached.Config{Servers: []string{"h:1"}}
	postgresOrigin := &postgres.Config{DSNFile: testenv.File(t, "host=h"), Query: "SELECT $1"}
	for _, tc := range []struct {
		name string
		ns   Namespace
		want string
	}{
		{"no Source", Namespace{Origin: loader.Custom{}}, "origin.source: Source is nil: give one"},
		{"max_key alone", Namespace{MaxKey: 7}, "max_key is for loads from an origin, and there is none: give an origin, or leave it out"},
		{"pattern alone", Namespace{KeyPattern: "a("}, `key_pattern "a(": error parsing regexp`},
		{"negative_ttl alone", Namespace{NegativeTTL: ptr(time.Second)}, "negative_ttl is for loads"},
		{"ttl_jitter alone", Namespace{TTLJitter: ptr(0.1)}, "ttl_jitter is for loads"},
		{"stale_if_error alone", Namespace{StaleIfError: time.Second}, "stale_if_error is for loads"},
		{"refresh_early alone", Namespace{RefreshEarly: ptr(1.0)}, "refresh_early is for loads"},
		{"limits alone", Namespace{Limits: Limits{Breaker: Breaker{Probes: 1}}}, "limits is for loads"},
		{"pattern", Namespace{Origin: http, KeyPattern: "a("}, `key_pattern "a(": error parsing regexp`},
		{"long pattern", Namespace{Origin: http, KeyPattern: strings.Repeat("a", 1025)}, "key_pattern has 1025 bytes: give at most 1024"},
		{"max_key", Namespace{Origin: http, MaxKey: 1025}, "max_key 1.0 KiB: give 0 B to 1.0 KiB"},
		{"ttl_jitter", Namespace{Origin: http, TTLJitter: ptr(0.51)}, "ttl_jitter 0.51: give 0 to 0.5"},
		{"stale beyond the limit", Namespace{StaleWhileRevalidate: 2 * time.Minute}, "stale_while_revalidate 2m0s is above stale_limit 1m0s: lower it, or raise stale_limit"},
		{"stale without a limit", Namespace{Origin: http, StaleIfError: 1, StaleLimit: ptr(time.Duration(0))}, "stale_if_error 1ns is above stale_limit 0s"},
		{"stale_while_revalidate", Namespace{StaleWhileRevalidate: -1}, "stale_while_revalidate -1ns: give 0s to"},
		{"stale_if_error", Namespace{Origin: http, StaleIfError: -1}, "stale_if_error -1ns: give 0s to"},
		{"lease_time", Namespace{LeaseTime: 1}, "lease_time 1ns: give 100ms to 10m0s"},
		{"retries", Namespace{Origin: http, Limits: Limits{Retries: 11}}, "limits.retries 11: give 0 to 10"},

		{"url", Namespace{Origin: &httporigin.Config{}}, "origin.http: http origin: its URL must have {key} once"},
		{"status", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Absent: []int{404, 4040}}}, "origin.http.absent 4040: give 200 to 599"},
		{"connections", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Connections: -1}}, "origin.http.connections -1: give 0 to 65536"},
		{"no header's name", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Headers: map[string]string{"a b": "c"}}}, `headers: "a b" is no header's name`},
		{"no header's value", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Headers: map[string]string{"a": "b\nc"}}}, "headers.a: the value has line breaks"},
		{"header twice", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Headers: map[string]string{"a": "b", "A": "c"}}}, "headers.a is there already"},
		{"secret header", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Headers: map[string]string{"authorization": "x"}}}, "headers.authorization is a secret: give the path of a file that contains it, in header_files"},
		{"no DSN", Namespace{Origin: &postgres.Config{Query: "SELECT $1"}}, "origin.postgres: there is no DSN: give dsn_file"},
		{"two DSNs", Namespace{Origin: &postgres.Config{DSNFile: "/a", DSNEnv: "A"}}, "origin.postgres.dsn_file and dsn_env are given: give one of them"},
		{"no query", Namespace{Origin: &postgres.Config{DSNFile: testenv.File(t, "host=h")}}, "query: it must have $1"},
		{"no address", Namespace{Origin: &redisorigin.Config{}}, "origin.redis.address: give host:port, or the path of a socket"},
		{"no port", Namespace{Origin: &redisorigin.Config{Address: "h"}}, "origin.redis.address: give host:port"},
		{"database", Namespace{Origin: &redisorigin.Config{Address: "h:1", DB: -1}}, "origin.redis.db -1: give 0 to 65536"},
		{"TLS without tls", Namespace{Origin: &redisorigin.Config{Address: "h:1", TLSCAFile: "/a"}}, "count with tls: true alone"},
		{"no certificate", Namespace{Origin: &redisorigin.Config{Address: "h:1", TLS: true, TLSCAFile: testenv.File(t, "x")}}, "there is no certificate in it"},
		{"no key", Namespace{Origin: &redisorigin.Config{Address: "h:1", TLS: true, TLSCertFile: testenv.File(t, "x"), TLSKeyFile: testenv.File(t, "x")}}, "give a certificate and its key, in PEM"},
		{"no servers", Namespace{Origin: &memcached.Config{}}, "origin.memcached.servers: there are none"},
		{"server", Namespace{Origin: &memcached.Config{Servers: []string{"h:1", "h"}}}, "origin.memcached.servers: give host:port"},
		{"no command", Namespace{Origin: &execorigin.Config{}}, "origin.exec: exec origin: no command"},
		{"no program", Namespace{Origin: &execorigin.Config{Command: []string{"/no/such"}}}, `exec origin: program "/no/such"`},
		{"exit status", Namespace{Origin: &execorigin.Config{Command: []string{"true"}, Absent: 256}}, "absent 256"},
		{"variable", Namespace{Origin: &execorigin.Config{Command: []string{"true"}, Env: []string{"CACHESIDECAR_TEST_UNSET"}}}, "env: the environment variable CACHESIDECAR_TEST_UNSET is not set, or empty"},

		{"known alone", Namespace{ExistingKeys: &ExistingKeys{Keys: 1}}, "existing_keys is for loads from an origin"},
		{"write_through alone", Namespace{WriteThrough: true}, "write_through is for loads from an origin"},
		{"no keys", Namespace{Origin: http, ExistingKeys: &ExistingKeys{}}, "existing_keys: a Bloom filter of 0 keys"},
		{"too many keys", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1 << 40}}, "existing_keys: a Bloom filter of 1099511627776 keys"},
		{"false_positives", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, FalsePositives: 0.6}}, "existing_keys.false_positives 0.6: give 0 to 0.5"},
		{"listed by a lagging server", Namespace{Origin: http, ReplicaLag: time.Second, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{URL: strings.Replace(http.URL, "{key}", "keys", 1)}}}, "replica_lag is 1s, and existing_keys lists the keys of the same origin"},
		{"listed by a lagging redis", Namespace{Origin: redisOrigin, ReplicaLag: time.Second, ExistingKeys: &ExistingKeys{Keys: 1}}, "replica_lag is 1s, and existing_keys lists the keys of the same origin"},
		{"max_age", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, MaxAge: -1}}, "existing_keys.max_age -1ns: give 0s to 8760h0m0s"},
		{"list's timeout", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{Timeout: -1}}}, "existing_keys.timeout -1ns: give 0s to 24h0m0s"},
		{"no list", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1}}, "existing_keys: there is no url that gives all keys: give it"},
		{"another's list", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{Query: "q", URL: "http://h"}}}, "existing_keys.query is for another kind of origin: leave it out"},
		{"no URL", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{URL: "h"}}}, "the URL of its list must begin with http:// or https://"},
		{"no list of memcached", Namespace{Origin: memcachedOrigin, ExistingKeys: &ExistingKeys{Keys: 1}}, "existing_keys: this kind of origin cannot list its keys"},
		{"no list of a Source", Namespace{Origin: aCustom, ExistingKeys: &ExistingKeys{Keys: 1}}, "existing_keys: this kind of origin cannot list its keys"},
		{"a list for redis", Namespace{Origin: redisOrigin, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{URL: "http://h"}}}, "existing_keys.url is for another kind of origin"},
		{"a Lister and a list", Namespace{Origin: http, ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{URL: "http://h", Lister: aStore{}}}}, "existing_keys.url is for another kind"},

		{"warm_on_start alone", Namespace{WarmOnStart: &Warm{}}, "warm_on_start is for loads from an origin"},
		{"rate of warming", Namespace{Origin: redisOrigin, WarmOnStart: &Warm{Rate: -1}}, "warm_on_start.rate -1: give 0 to"},
		{"keys to warm", Namespace{Origin: redisOrigin, WarmOnStart: &Warm{Keys: -1}}, "warm_on_start.keys -1: give 0 to"},
		{"list's timeout of warming", Namespace{Origin: redisOrigin, WarmOnStart: &Warm{List: loader.List{Timeout: -1}}}, "warm_on_start.timeout -1ns"},
		{"no list to warm", Namespace{Origin: memcachedOrigin, WarmOnStart: &Warm{}}, "warm_on_start: this kind of origin cannot list its keys"},

		{"Writer alone", Namespace{Origin: loader.Custom{Source: loader.SourceFunc(aSource), Writer: aStore{}}}, "origin.source: there are settings of writes, and write_through is off"},
		{"no Writer", Namespace{Origin: aCustom, WriteThrough: true}, "write_through: a Source takes no writes: give a Writer too"},
		{"no statements", Namespace{Origin: postgresOrigin, WriteThrough: true}, "its statement to store must have $1, the key, and $2, the value"},
		{"a method", Namespace{Origin: &httporigin.Config{URL: "http://h/{key}", Write: httporigin.WriteConfig{StoreMethod: "A B"}}, WriteThrough: true}, `method "A B" is not a method`},
		{"half a second", Namespace{Origin: &memcached.Config{Servers: []string{"h:1"}, Write: memcached.WriteConfig{TTL: 500 * time.Millisecond}}, WriteThrough: true}, "a TTL of 500ms"},
		{"unused writes", Namespace{Origin: &redisorigin.Config{Address: "h:1", Write: redisorigin.WriteConfig{TTL: time.Second}}}, "origin.redis: there are settings of writes, and write_through is off: set it, or leave them out"},
		{"no program to store", Namespace{Origin: &execorigin.Config{Command: []string{"true"}, Write: execorigin.WriteConfig{Store: []string{"/no/such"}, Delete: []string{"true"}}}, WriteThrough: true}, `"/no/such"`},
	} {
		err := Config{Namespaces: map[string]Namespace{"a": tc.ns}}.Check()
		if err == nil || !strings.HasPrefix(err.Error(), "namespaces.a.") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	for name, ns := range map[string]Namespace{
		"what apps that load use":  {KeyPattern: "[0-9]+", ReplicaLag: time.Minute, LeaseTime: time.Second, StaleWhileRevalidate: time.Second},
		"everything":               {Origin: http, KeyPattern: "[0-9]+", MaxKey: 9, StaleIfError: time.Minute, Limits: Limits{Rate: 1, Breaker: Breaker{Open: time.Second}}},
		"redis":                    {Origin: redisOrigin, WriteThrough: true, ExistingKeys: &ExistingKeys{Keys: 1000}},
		"a list of another server": {Origin: http, ReplicaLag: time.Second, ExistingKeys: &ExistingKeys{Keys: 1000, List: loader.List{URL: "http://other.invalid/keys"}}},
		"a Source":                 {Origin: aCustom, NegativeTTL: ptr(time.Duration(0))},
	} {
		if err := (Config{Namespaces: map[string]Namespace{"a": ns}}).Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpenOrigin(t *testing.T) {
	if o, err := namespaces.OpenOrigin("a", Namespace{}.spec(), &namespaces.Config{}); o != nil || err != nil {
		t.Errorf("without an origin: %v, %v", o, err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.URL.Path, r.Header.Get("X-A"), r.Header.Get("Authorization"))
	}))
	defer server.Close()
	t.Setenv("CACHESIDECAR_TEST_WORD", "from the environment")
	dsn := testenv.File(t, "host=/nowhere user=u dbname=d\n")
	for _, tc := range []struct {
		name   string
		ns     Namespace
		key    string
		want   string // "": it is not loaded, because there is no such server here
		checks bool
	}{
		{"http", Namespace{Origin: &httporigin.Config{
			URL: server.URL + "/{key}", Headers: map[string]string{"X-A": "b"}, HeaderFiles: map[string]string{"Authorization": testenv.File(t, "c\r\n")},
		}}, "k", "/kbc", false},
		{"exec", Namespace{Origin: &execorigin.Config{
			Command: []string{"sh", "-c", `echo -n "$A $CACHESIDECAR_TEST_WORD $HOME $0"`}, Env: []string{"A=b", "CACHESIDECAR_TEST_WORD"},
		}}, "k", "b from the environment " + os.Getenv("HOME") + " k", false},
		{"source", Namespace{Origin: own(func(_ context.Context, key []byte) (loader.Value, error) {
			return loader.Value{Bytes: append([]byte("the "), key...)}, nil
		})}, "k", "the k", false},
		{"postgres", Namespace{Origin: &postgres.Config{DSNFile: dsn, Query: "SELECT $1", Format: "json"}}, "", "", true},
		{"redis", Namespace{Origin: &redisorigin.Config{Address: "[::1]:6379", TLS: true, PasswordEnv: "CACHESIDECAR_TEST_WORD"}}, "", "", true},
		{"memcached", Namespace{Origin: &memcached.Config{Servers: []string{"no.such.host.invalid:1", "/socket"}}}, "", "", true},
	} {
		tc.ns.KeyPattern = "[a-z]"
		o, err := namespaces.OpenOrigin("a", tc.ns.spec(), &namespaces.Config{MaxValue: 100, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if o.Name != tc.name || (o.Check(t.Context()) != nil) != tc.checks {
			t.Errorf("%s: %+v", tc.name, o)
		}
		if o.Keys.Check([]byte("k")) != nil || o.Keys.Check([]byte("K")) == nil {
			t.Errorf("%s: its keys do not follow the pattern", tc.name)
		}
		if tc.want != "" {
			if v, err := o.Guard.Load(t.Context(), []byte(tc.key)); err != nil || string(v.Bytes) != tc.want {
				t.Errorf("%s: loaded %q, %v; want %q", tc.name, v.Bytes, err, tc.want)
			}
		}
		if err := o.Close(); err != nil {
			t.Errorf("%s: closed: %v", tc.name, err)
		}
	}
}

// The sidecar's max_value bounds the values of every kind of origin.
func TestOriginMaxValue(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Repeat("x", 101))
	}))
	defer server.Close()
	for name, ns := range map[string]Namespace{
		"http": {Origin: &httporigin.Config{URL: server.URL + "/{key}"}},
		"exec": {Origin: &execorigin.Config{Command: []string{"head", "-c", "101", "--", "/dev/zero"}}},
		"source": {Origin: own(func(context.Context, []byte) (loader.Value, error) {
			return loader.Value{Bytes: make([]byte, 101)}, nil
		})},
	} {
		o, err := namespaces.OpenOrigin("a", ns.spec(), &namespaces.Config{MaxValue: 100, Log: slog.New(slog.DiscardHandler)})
		testenv.Must(t, err)
		if _, err := o.Guard.Load(t.Context(), []byte("/dev/zero")); !errors.Is(err, loader.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", name, err)
		}
		_ = o.Close()
	}
}

// TestOriginAsksItself checks that an origin in the program that asks for the key that it loads
// gets an error, and not one of time. It may ask for another key.
func TestOriginAsksItself(t *testing.T) {
	var s *Sidecar
	var told []error // of the loads' own reads
	next := map[string]string{"own": "own", "c": "d"}
	s = start(t, Config{NoSocket: true, RequestTimeout: time.Minute, Namespaces: map[string]Namespace{DefaultNamespace: {
		Origin: own(func(ctx context.Context, key []byte) (loader.Value, error) {
			if next[string(key)] == "" {
				return loader.Value{Bytes: key}, nil
			}
			it, err := s.Get(ctx, DefaultNamespace, next[string(key)], cachesidecar.GetOptions{})
			told = append(told, err)
			return loader.Value{Bytes: it.Value}, err
		}),
	}}})
	for _, key := range []string{"own", "c"} {
		it, err := s.Get(t.Context(), DefaultNamespace, key, cachesidecar.GetOptions{})
		if key == "c" {
			if err != nil || string(it.Value) != "d" {
				t.Errorf("another key: %q, %v", it.Value, err)
			}
		} else if !errors.Is(err, cachesidecar.ErrOrigin) || !strings.Contains(fmt.Sprint(told[0]), "would wait for itself") {
			t.Errorf("%s: %v, after %v", key, err, told)
		}
		told = nil
	}
}
