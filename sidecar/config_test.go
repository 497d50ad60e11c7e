package sidecar

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

func TestConfigDefaults(t *testing.T) {
	c, err := Config{}.withDefaults()
	testenv.Must(t, err)
	if c.Node == "" || c.L1Size != 64<<20 || c.L2Size != 256<<20 || c.MaxValue != 8<<20 || c.RequestTimeout != time.Second || c.MaxNamespaces != 256 {
		t.Errorf("%+v", c)
	}
	if c.HTTP != "" {
		t.Errorf("an embedded sidecar serves HTTP on %q", c.HTTP)
	}
	if small, err := (Config{L2Size: 8 << 20}).withDefaults(); err != nil || small.MaxValue != 512<<10 {
		t.Errorf("max_value of a small store: %v, %v", small.MaxValue, err)
	}
}

func TestConfigRefused(t *testing.T) {
	ttl := func(d time.Duration) *time.Duration { return &d }
	many := map[string]Namespace{}
	for _, c := range "abcdefgh" {
		many[string(c)] = Namespace{}
	}
	for _, tc := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"node with a blank", Config{Node: "a b"}, `node "a b": give 1 to 128 bytes without blanks and control characters`},
		{"negative size", Config{L2Size: -1}, "l2_size -1 B: give 8.0 MiB to 256 GiB"},
		{"small l2", Config{L2Size: 1 << 20}, "l2_size 1.0 MiB: give 8.0 MiB to 256 GiB"},
		{"small l1", Config{L1Size: 1}, "l1_size 1 B: give 1.0 MiB"},
		{"value above a sixteenth", Config{L2Size: 64 << 20, MaxValue: 5 << 20}, "max_value 5.0 MiB is above 1/16 of l2_size 64 MiB: raise l2_size to 80 MiB, or lower max_value to 4.0 MiB"},
		{"namespaces", Config{MaxNamespaces: 257}, "max_namespaces 257: give 1 to 256"},
		{"too many configured", Config{MaxNamespaces: 8, Namespaces: many}, "max_namespaces 8: 9 namespaces are configured"},
		{"namespace's name", Config{Namespaces: map[string]Namespace{"A": {}}}, `namespaces.A: a name is 1 to 64 of`},
		{"namespace's ttl", Config{Namespaces: map[string]Namespace{"a": {DefaultTTL: ttl(-1)}}}, "namespaces.a.default_ttl -1ns: give 0 (no expiry) to 8760h0m0s"},
		{"namespace's long ttl", Config{Namespaces: map[string]Namespace{"a": {DefaultTTL: ttl(9000 * time.Hour)}}}, "give 0 (no expiry) to 8760h0m0s"},
		{"namespace's quota", Config{Namespaces: map[string]Namespace{"a": {Quota: 1}}}, "namespaces.a.quota 1 B: give 64 KiB to l2_size"},
		{"quota above l2", Config{Namespaces: map[string]Namespace{"a": {Quota: 1 << 30}}}, "namespaces.a.quota 1.0 GiB: give 64 KiB to l2_size (256 MiB)"},
		{"socket mode", Config{SocketMode: 0o7777}, "socket_mode 7777: give permission bits only"},
		{"connections", Config{MaxConnections: -1}, "max_connections -1: give 1 to"},
		{"timeout", Config{RequestTimeout: -1}, "request_timeout -1ns: give 1ms to 1h"},
		{"http", Config{HTTP: "nowhere"}, `http "nowhere": give host:port, such as 127.0.0.1:7948, or "off"`},
		{"http port", Config{HTTP: "127.0.0.1:99999"}, `http "127.0.0.1:99999": give host:port`},
		{"memory", Config{L2Size: 200 << 30}, "need 200 GiB, but "},
	} {
		if err := tc.cfg.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
	if err := (Config{L2Size: 200 << 30, IgnoreMemoryLimit: true}).Check(); err != nil {
		t.Errorf("with ignore_memory_limit: %v", err)
	}
}

func TestConfigVoters(t *testing.T) {
	for _, tc := range []struct {
		name, policy, bind string
		voters             []string
		want               string // "": the configuration is valid
	}{
		{"neither", "", "127.0.0.1:1", nil, ""},
		{"available", "available", "127.0.0.1:1", nil, ""},
		{"three", "consistent", "127.0.0.1:1", []string{"a", "b", "c"}, ""},
		{"five", "consistent", "127.0.0.1:1", []string{"e", "d", "c", "b", "a"}, ""},
		{"unknown policy", "both", "127.0.0.1:1", nil, `partition_policy "both": give available or consistent`},
		{"no voters", "consistent", "127.0.0.1:1", nil, "partition_policy consistent: there are no voters: give the names of 3 or 5 nodes, the same on all"},
		{"empty list", "consistent", "127.0.0.1:1", []string{}, "partition_policy consistent: there are no voters"},
		{"voters without it", "", "127.0.0.1:1", []string{"a", "b", "c"}, "voters a,b,c: they count under partition_policy consistent alone, and it is available: set it, or leave voters out"},
		{"voters under available", "available", "127.0.0.1:1", []string{"a", "b", "c"}, "voters a,b,c: they count under partition_policy consistent alone"},
		{"one", "consistent", "127.0.0.1:1", []string{"a"}, "voters a: 1 are given: give the names of 3 or 5 nodes"},
		{"an even number", "consistent", "127.0.0.1:1", []string{"a", "b", "c", "d"}, "voters a,b,c,d: 4 are given: give the names of 3 or 5 nodes"},
		{"seven", "consistent", "127.0.0.1:1", strings.Split("a,b,c,d,e,f,g", ","), "7 are given"},
		{"twice", "consistent", "127.0.0.1:1", []string{"a", "b", "a"}, "voters a,b,a: a is given twice"},
		{"no name", "consistent", "127.0.0.1:1", []string{"a", "", "c"}, `voters: "" is no node's name: give 1 to 128 bytes without blanks and commas`},
		{"a blank", "consistent", "127.0.0.1:1", []string{"a", "b c", "c"}, `voters: "b c" is no node's name`},
		{"a comma", "consistent", "127.0.0.1:1", []string{"a", "b,c", "c"}, `voters: "b,c" is no node's name`},
		{"a long name", "consistent", "127.0.0.1:1", []string{"a", "b", strings.Repeat("c", 129)}, "is no node's name"},
		{"alone", "consistent", "", []string{"a", "b", "c"}, "partition_policy consistent: there is no bind address, and no voter could be asked"},
	} {
		err := Config{PartitionPolicy: tc.policy, Voters: tc.voters, Bind: tc.bind}.Check()
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

func TestSizeText(t *testing.T) {
	for text, want := range map[string]Size{"64MiB": 64 << 20, "1 GiB": 1 << 30, "500kB": 500_000, "123": 123, "1g": 1_000_000_000} {
		var s Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: %d, %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "-1MiB", "MiB", "1 parsec", "99999999999999999999GiB"} {
		var s Size
		if err := s.Set(text); err == nil {
			t.Errorf("%q is accepted as %d", text, s)
		}
	}
	for text, want := range map[string]FileMode{"0660": 0o660, "600": 0o600} {
		var m FileMode
		if err := m.Set(text); err != nil || m != want {
			t.Errorf("%q: %v, %v", text, m, err)
		}
	}
	for _, text := range []string{"", "0o660", "999", "1777", "rw"} {
		var m FileMode
		if err := m.Set(text); err == nil {
			t.Errorf("mode %q is accepted as %v", text, m)
		}
	}
	for text, want := range map[string]Percent{"0.1%": 0.1, "100 %": 100, "1e-3%": 0.001, "-1%": -1} {
		var p Percent
		if err := p.UnmarshalText([]byte(text)); err != nil || p != want {
			t.Errorf("%q: %v, %v", text, p, err)
		}
	}
	for _, text := range []string{"", "%", "0.1", "one%", "NaN%", "Inf%", "1%%"} {
		var p Percent
		if err := p.UnmarshalText([]byte(text)); err == nil || !strings.Contains(err.Error(), "such as 0.1%") {
			t.Errorf("share %q: %v, %v", text, p, err)
		}
	}
	if text := Percent(0.1).String(); text != "0.1%" {
		t.Errorf("0.1%% is shown as %s", text)
	}
}

// TestNodeNames checks that a valid node name is a name that other hosts accept. They
// drop gossip of names with invisible characters, so a host with such a name would find
// no other host and not know why.
func TestNodeNames(t *testing.T) {
	for name, good := range map[string]bool{
		"web-1.example": true, "knödel": true, "a b": false, "a\tb": false, "a\ab": false, "a\x1b[2J": false,
		"a\xff": false, "a\u00a0b": false, "a\u202eb": false, strings.Repeat("x", 128): true, strings.Repeat("x", 129): false,
	} {
		cfg := Config{Node: name}
		if err := cfg.Check(); (err == nil) != good {
			t.Errorf("%q: %v", name, err)
		}
	}
}

var documentedDefault = regexp.MustCompile("^\\| `([a-z0-9_]+)` \\| [^|]* \\| `([^`]+)` \\|")

// TestDefaultsAsDocumented checks that a setting that has the default of docs/CONFIG.md
// is as one that is left out. The defaults of the other settings are filled in elsewhere.
func TestDefaultsAsDocumented(t *testing.T) {
	elsewhere := []string{"socket_mode", "max_key"}
	doc, err := os.ReadFile("../docs/CONFIG.md")
	testenv.Must(t, err)
	filled := func(c Config) Config {
		c, err := c.withDefaults()
		testenv.Must(t, err)
		c.Log, c.clock = nil, nil
		return c
	}
	seen, ofNamespace := 0, false
	for line := range strings.Lines(string(doc)) {
		if strings.HasPrefix(line, "<!-- settings") {
			ofNamespace = strings.Contains(line, "of a namespace")
		}
		m := documentedDefault.FindStringSubmatch(line)
		if m == nil || slices.Contains(elsewhere, m[1]) {
			continue
		}
		seen++
		var c Config
		var ns Namespace
		text := []byte(m[1] + ": " + m[2])
		if err := errors.Join(yaml.Unmarshal(text, &c), yaml.Unmarshal(text, &ns)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if ofNamespace && !reflect.DeepEqual(ns.spec(), Namespace{}.spec()) {
			t.Errorf("%s is not the default of a namespace", text)
		}
		if !ofNamespace && !reflect.DeepEqual(filled(c), filled(Config{})) {
			t.Errorf("%s is not the default", text)
		}
	}
	if seen < 20 {
		t.Errorf("%d defaults were found", seen)
	}
}

// TestCheckTellsAll checks that Check reports everything that is wrong, and New too, and
// nothing that follows from another mistake only.
func TestCheckTellsAll(t *testing.T) {
	year := 9000 * time.Hour
	cfg := Config{
		Node: "two words", SocketMode: 0o1777, L1Size: 1, L2Size: 1, MaxValue: 4 << 20, BufferSize: 1, MaxNamespaces: 1000,
		MaxConnections: -1, RequestTimeout: -1, Bind: "nowhere:x", Cluster: "two words", MaxStaleness: 1, MaxClockSkew: time.Hour,
		TLS: TLSFiles{Cert: "/c"}, HTTP: "nowhere", HTTPTokenFile: "relative", HTTPHosts: []string{"a/b"}, AdminGroup: "no-such-group",
		Tokens: map[string]Token{"t": {File: "/no/such"}}, Access: map[string]Grants{"Big": {Read: []string{"anyone"}}, "b": {}, "c": {Read: []string{"token:t", "nobody"}}},
		Namespaces: map[string]Namespace{
			"Big": {}, "a": {DefaultTTL: &year, Quota: 1, LeaseTime: 1, MaxStaleness: 1, KeyPattern: "x(", WriteThrough: true},
			"h": {Origin: &httporigin.Config{URL: "http://u:p@h/{key}", Absent: []int{1}, Connections: -1}, MaxKey: 5000, Limits: Limits{Queue: -1, Retries: 99}},
			"r": {Origin: &redisorigin.Config{Address: "x", PasswordFile: "rel"}, KeyPattern: "("},
		},
	}
	want := []string{
		"node ", "socket_mode ", "l1_size ", "l2_size ", "buffer_size ", "max_namespaces ", "max_connections ", "request_timeout ", "bind ",
		"cluster ", "max_staleness ", "max_clock_skew ", "tls.key ", "http ", "http_token_file", "http_hosts ", "admin_group: ",
		"tokens.t.file ", "access.Big: ", "access.b: say", "access.c.read: \"nobody\"", "namespaces.Big: ",
		"namespaces.a.default_ttl ", "namespaces.a.quota ", "namespaces.a.lease_time ", "namespaces.a.max_staleness ", "namespaces.a.key_pattern \"x(\"",
		"namespaces.a.write_through is for", "namespaces.h.max_key ", "namespaces.h.limits.queue ", "namespaces.h.limits.retries ",
		"namespaces.h.origin.http.url: ", "namespaces.h.origin.http.absent ", "namespaces.h.origin.http.connections ",
		"namespaces.r.key_pattern", "namespaces.r.origin.redis.address", "namespaces.r.origin.redis.password_file",
	}
	problems := settings.Each(cfg.Check())
	for _, w := range want {
		if n := slices.IndexFunc(problems, func(err error) bool { return strings.HasPrefix(err.Error(), w) }); n >= 0 {
			problems = slices.Delete(problems, n, n+1)
		} else {
			t.Errorf("nothing begins with %q", w)
		}
	}
	for _, p := range problems {
		t.Errorf("too much: %v", p)
	}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "l1_size ") || !strings.Contains(err.Error(), "max_clock_skew ") {
		t.Errorf("New: %v", err)
	}
}
