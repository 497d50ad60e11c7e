package sidecar

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// TestDigests checks which changes of settings hosts tell each other.
func TestDigests(t *testing.T) {
	of := func(ns Namespace) cluster.Digests {
		c, _ := Config{Bind: "127.0.0.1:0", Namespaces: map[string]Namespace{"a": ns}}.withDefaults()
		return c.digests()
	}
	origin := func(o loader.OriginConfig) Namespace { return Namespace{Origin: o} }
	for _, tc := range []struct {
		name string
		a, b Namespace
		want string // the settings that differ
	}{
		{"a default that is given", Namespace{}, Namespace{DefaultTTL: ptr(time.Hour)}, ""},
		{"a quota", Namespace{Quota: 1 << 20}, Namespace{}, ""},
		{"a host and a password", origin(httporigin.Config{URL: "http://u:hunter2@a/x/{key}?token=1"}), origin(httporigin.Config{URL: "https://b:80/x/{key}?token=2"}), ""},
		{"a path", origin(httporigin.Config{URL: "http://a/x/{key}"}), origin(httporigin.Config{URL: "http://a/y/{key}"}), "origin.http.url"},
		{"a method", origin(httporigin.Config{}), origin(httporigin.Config{Method: "GET", Absent: []int{404, 410}}), ""},
		{"an address", origin(redisorigin.Config{Address: "a:1", Password: "x"}), origin(redisorigin.Config{Address: "b:1"}), ""},
		{"a parameter's value", origin(httporigin.Config{URL: "http://a/x?key=1&b=2"}), origin(httporigin.Config{URL: "http://a/x?key=3&b=4"}), ""},
		{"a parameter", origin(httporigin.Config{URL: "http://a/x?a=1"}), origin(httporigin.Config{URL: "http://a/x?b=1"}), "origin.http.url"},
		{"an order", origin(httporigin.Config{Absent: []int{410, 404}}), origin(httporigin.Config{}), ""},
		{"a command's secret", origin(execorigin.Config{Command: []string{"a", "--token", "x"}}), origin(execorigin.Config{Command: []string{"a", "--token", "y"}}), ""},
		{"a database", origin(redisorigin.Config{DB: 1}), origin(redisorigin.Config{}), "origin.redis.db"},
		{"a prefix", origin(memcached.Config{KeyPrefix: "x"}), origin(memcached.Config{}), "origin.memcached.key_prefix"},
		{"a command", origin(execorigin.Config{Command: []string{"a"}}), origin(execorigin.Config{Command: []string{"b"}, Absent: 1}), "origin.exec.command"},
		{"a kind", origin(postgres.Config{}), origin(memcached.Config{}), "origin"},
		{"an origin", origin(postgres.Config{}), Namespace{}, "origin"},
		{"an audit", Namespace{Audit: 1}, Namespace{}, "audit"},
		{"a filter", Namespace{ExistingKeys: &ExistingKeys{Keys: 1}}, Namespace{}, "existing_keys"},
		{"a filter's list", Namespace{ExistingKeys: &ExistingKeys{Keys: 1, List: loader.List{Query: "x"}}}, Namespace{ExistingKeys: &ExistingKeys{Keys: 2, MaxAge: time.Hour}}, "existing_keys.query"},
	} {
		var differ []string
		a, b := of(tc.a)["namespaces.a"], of(tc.b)["namespaces.a"]
		for _, name := range slices.Sorted(maps.Keys(a)) {
			if other, both := b[name]; both && other != a[name] {
				differ = append(differ, name)
			}
		}
		if got := strings.Join(differ, " "); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	feed := func(f Feed) string {
		c := Config{Feeds: map[string]Feed{"rows": f}}
		return maps2text(c.digests()["changes.rows"])
	}
	tables := func(key string) postgres.FeedConfig {
		return postgres.FeedConfig{Tables: map[string]postgres.FeedTable{"public.users": {Namespace: "users", Key: key}}}
	}
	if feed(Feed{Source: tables("{id}")}) == feed(Feed{Source: tables("{name}")}) || feed(Feed{MaxLag: time.Minute}) == feed(Feed{}) {
		t.Error("feeds with other tables, or another max_lag, are the same")
	}
}

func maps2text(m map[string]uint64) (text string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		text += k + string(rune(m[k]%0xd000)) + " "
	}
	return text
}

// changesNoAnswer are the settings that hosts may have otherwise: limits, quotas, sizes, addresses, secrets, and what
// concerns one host.
const changesNoAnswer = `access admin_group adaptive_weight advertise alone_ok bind buffer_size cluster cluster_key_file http
	http_hosts http_token_file ignore_memory_limit insecure join keep_memory l1_size l2_size leave_time max_clock_skew max_connections
	max_namespaces max_value memcached node peer_bind pprof request_timeout shared_size socket socket_group socket_mode tls tokens
	weight limits quota shared warm_on_start keys false_positives timeout
	address password_file password_env username tls_ca_file tls_cert_file tls_key_file connections dsn_file dsn_env
	slot publication headers header_files servers env namespaces changes`

// TestEverySettingIsDecided checks that each setting is compared, or is known to change no answer.
func TestEverySettingIsDecided(t *testing.T) {
	decided := map[string]bool{}
	for name := range strings.FieldsSeq(changesNoAnswer) {
		decided[name] = false
	}
	var walk func(of reflect.Type)
	walk = func(of reflect.Type) {
		for i := range of.NumField() {
			f := of.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "-" {
				name = f.Tag.Get("setting")
			}
			if options == "inline" {
				walk(f.Type)
			} else if _, not := decided[name]; name != "" && not == (f.Tag.Get("answers") != "") {
				t.Errorf("%s.%s: give %q the tag answers, or put it into changesNoAnswer", of, f.Name, name)
			} else if not {
				decided[name] = true
			}
		}
	}
	for _, v := range []any{
		Config{}, Namespace{}, ExistingKeys{}, Feed{}, postgres.Config{}, postgres.FeedConfig{}, postgres.FeedTable{},
		httporigin.Config{}, redisorigin.Config{}, memcached.Config{}, execorigin.Config{},
	} {
		walk(reflect.TypeOf(v))
	}
	for name, met := range decided {
		if !met {
			t.Errorf("changesNoAnswer has %s, which is no setting", name)
		}
	}
}
