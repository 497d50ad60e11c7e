package configfile

import (
	"encoding"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// parsed parses a file, and returns what is wrong with it as an error.
func parsed(b []byte) (File, error) {
	cfg := Parse(b)
	return cfg, cfg.Wrong.OrNil()
}

func TestParseConfig(t *testing.T) {
	two := 2.0
	cfg, err := parsed([]byte(`
# everything there is
node: host-7
socket: /tmp/s
socket_mode: 0600
socket_group: 7
l1_size: 1.5GiB
l2_size: 1073741824
max_value: 500kB
max_namespaces: 9
max_connections: 10
request_timeout: 1m30s
bind: 127.0.0.1:1
peer_bind: 127.0.0.1:2
advertise: 127.0.0.1
join: [a:1, b:1]
cluster: c
cluster_key_file: /k
tls: {cert: /c, key: /p, ca: /r}
insecure: yes
partition_policy: consistent
voters: [a, b, c]
weight: 7
max_staleness: 1s
max_clock_skew: 100ms
http: off
pprof: on
ignore_memory_limit: true
log_format: json
log_level: debug
namespaces:
  pages: &p
    default_ttl: 1d12h
    quota: 1MiB
  users: *p
  plain:
  loaded:
    origin:
      http:
        url: http://127.0.0.1:8080/{key}
        method: POST
        headers: {Accept: text/plain}
        header_files: {Authorization: /etc/token}
        absent: [404]
        cache_control: true
        connections: 7
        store_method: PATCH
        delete_method: POST
        content_type: text/plain
    key_pattern: '[a-z]+'
    max_key: 100B
    negative_ttl: 0s
    ttl_jitter: 0
    stale_while_revalidate: 10s
    stale_if_error: 20s
    refresh_early: 2
    replica_lag: 3s
    lease_time: 4s
    audit: 0.25%
    limits: &l
      concurrency: 1
      queue: 2
      queue_time: 3s
      rate: 4.5
      burst: 5
      timeout: 6s
      breaker: {failures: 7, open: 8s, probes: 9}
      retries: 10
      retry_share: 0.5
  database:
    origin: {postgres: {dsn_file: /f, dsn_env: E, query: q, format: json, connections: 1, store: s, delete: d}}
    limits: *l
    existing_keys: {keys: 1, false_positives: 0.2, max_age: 3s, query: k, url: u, command: [c], timeout: 4s}
    warm_on_start: {rate: 2.5, keys: 3, query: k, url: u, command: [c], timeout: 4s}
    write_through: true
  redis:
    origin: {redis: {address: a, username: u, password_file: /f, password_env: E, db: 1, tls: true,
      tls_ca_file: /c, tls_cert_file: /d, tls_key_file: /e, key_prefix: p, ignore_ttl: true, connections: 2, store_ttl: 1s}}
  memcached:
    origin: {memcached: {servers: [a, b], key_prefix: p, connections: 3, store_ttl: 2s}}
  script:
    origin: {exec: {command: [a, b], env: [A=b, C], absent: 4, store: [s], delete: [d], refused: 5}}
`))
	testenv.Must(t, err)
	if cfg.Node != "host-7" || cfg.Socket != "/tmp/s" || cfg.SocketMode != 0o600 || cfg.SocketGroup != "7" ||
		cfg.L1Size != 3<<29 || cfg.L2Size != 1<<30 || cfg.MaxValue != 500_000 || cfg.MaxNamespaces != 9 || cfg.MaxConnections != 10 ||
		cfg.RequestTimeout != 90*time.Second || cfg.HTTP != "off" || !cfg.Pprof || !cfg.IgnoreMemoryLimit || cfg.LogFormat != "json" || cfg.LogLevel != "debug" {
		t.Errorf("%+v", cfg)
	}
	if cfg.Bind != "127.0.0.1:1" || cfg.PeerBind != "127.0.0.1:2" || cfg.Advertise != "127.0.0.1" || fmt.Sprint(cfg.Join) != "[a:1 b:1]" || cfg.Cluster != "c" ||
		cfg.ClusterKeyFile != "/k" || cfg.TLS != (sidecar.TLSFiles{Cert: "/c", Key: "/p", CA: "/r"}) || !cfg.Insecure || cfg.PartitionPolicy != "consistent" || fmt.Sprint(cfg.Voters) != "[a b c]" || cfg.Weight != 7 || cfg.MaxStaleness != time.Second || cfg.MaxClockSkew != 100*time.Millisecond {
		t.Errorf("%+v", cfg)
	}
	for _, name := range []string{"pages", "users"} {
		if ns := cfg.Namespaces[name]; ns.DefaultTTL == nil || *ns.DefaultTTL != 36*time.Hour || ns.Quota != 1<<20 {
			t.Errorf("%s: %+v", name, ns)
		}
	}
	if _, ok := cfg.Namespaces["plain"]; !ok || len(cfg.Namespaces) != 8 {
		t.Errorf("%+v", cfg.Namespaces)
	}
	limits := sidecar.Limits{
		Concurrency: 1, Queue: 2, QueueTime: 3 * time.Second, Rate: 4.5, Burst: 5, Timeout: 6 * time.Second,
		Breaker: sidecar.Breaker{Failures: 7, Open: 8 * time.Second, Probes: 9}, Retries: 10, RetryShare: 0.5,
	}
	for name, want := range map[string]sidecar.Namespace{
		"loaded": {
			Origin: &httporigin.Config{
				URL: "http://127.0.0.1:8080/{key}", Method: "POST", Headers: map[string]string{"Accept": "text/plain"},
				HeaderFiles: map[string]string{"Authorization": "/etc/token"}, Absent: []int{404}, CacheControl: true, Connections: 7,
				Write: httporigin.WriteConfig{StoreMethod: "PATCH", DeleteMethod: "POST", ContentType: "text/plain"},
			},
			KeyPattern: "[a-z]+", MaxKey: 100, NegativeTTL: new(time.Duration), TTLJitter: new(float64),
			StaleWhileRevalidate: 10 * time.Second, StaleIfError: 20 * time.Second, RefreshEarly: &two, ReplicaLag: 3 * time.Second, LeaseTime: 4 * time.Second, Audit: 0.25,
			Limits: limits,
		},
		"database": {
			Origin: &postgres.Config{DSNFile: "/f", DSNEnv: "E", Query: "q", Format: "json", Connections: 1, Write: postgres.WriteConfig{Store: "s", Delete: "d"}},
			Limits: limits, WriteThrough: true,
			WarmOnStart:  &sidecar.Warm{Rate: 2.5, Keys: 3, List: loader.List{Query: "k", URL: "u", Command: []string{"c"}, Timeout: 4 * time.Second}},
			ExistingKeys: &sidecar.ExistingKeys{Keys: 1, FalsePositives: 0.2, MaxAge: 3 * time.Second, List: loader.List{Query: "k", URL: "u", Command: []string{"c"}, Timeout: 4 * time.Second}},
		},
		"redis": {Origin: &redisorigin.Config{
			Address: "a", Username: "u", PasswordFile: "/f", PasswordEnv: "E", DB: 1, TLS: true, TLSCAFile: "/c", TLSCertFile: "/d", TLSKeyFile: "/e",
			KeyPrefix: "p", IgnoreTTL: true, Connections: 2, Write: redisorigin.WriteConfig{TTL: time.Second},
		}},
		"memcached": {Origin: &memcached.Config{Servers: []string{"a", "b"}, KeyPrefix: "p", Connections: 3, Write: memcached.WriteConfig{TTL: 2 * time.Second}}},
		"script":    {Origin: &execorigin.Config{Command: []string{"a", "b"}, Env: []string{"A=b", "C"}, Absent: 4, Write: execorigin.WriteConfig{Store: []string{"s"}, Delete: []string{"d"}, Refused: 5}}},
	} {
		if got := cfg.Namespaces[name]; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", name, got, want)
		}
	}
	for name, text := range map[string]string{"empty": "", "blank": " \n\n", "comment": "# nothing\n", "null": "~\n", "dashes": "---\n", "BOM": "\ufeff"} {
		if cfg, err := parsed([]byte(text)); err != nil || cfg.Check() != nil {
			t.Errorf("%s file: %v, %v", name, err, cfg.Check())
		}
	}
}

// badConfigs are invalid files, each with the expected message.
var badConfigs = []struct{ name, text, want string }{
	{"unknown key", "l2_size: 1GiB\nl3_size: 1GiB\n", `line 2: "l3_size" is no setting: did you mean l1_size? There are node, socket,`},
	{"key with a dash", "l2-size: 1GiB", `line 1: "l2-size" is no setting: did you mean l2_size? There are `},
	{"unknown key of a namespace", "namespaces:\n  a:\n    ttl: 5m\n", `line 3: "ttl" is no setting of a namespace: did you mean default_ttl? There are default_ttl, max_staleness, stale_limit, quota`},
	{"misspelt key of a namespace", "namespaces:\n  a:\n    defualt_ttl: 5m\n", `line 3: "defualt_ttl" is no setting of a namespace: did you mean default_ttl? There are default_ttl,`},
	{"another cache's word", "namespaces: {a: {max_memory: 1MiB}}", `"max_memory" is no setting of a namespace: did you mean quota? There are`},
	{"another spelling of it", "namespaces: {a: {maxmemory: 1MiB}}", `did you mean quota? There are`},
	{"another cache's word at the top", "max-memory: 1GiB", `"max-memory" is no setting: did you mean l2_size? There are`},
	{"one with several meanings", "port: 1", `"port" is no setting: did you mean socket, memcached or bind? There are`},
	{"alike in its first part alone", "namespaces: {a: {max_entries: 1}}", `"max_entries" is no setting of a namespace; there are`},
	{"a word of elsewhere", "ttl: 1m", `"ttl" is no setting: did you mean default_ttl, a setting of a namespace? There are`},
	{"a namespace's setting at the top", "quota: 1MiB", `"quota" is no setting: did you mean the setting of a namespace? There are`},
	{"a setting of the top in a namespace", "namespaces: {a: {l2_size: 1MiB}}", `"l2_size" is no setting of a namespace: did you mean the setting that stands at the top of the file?`},
	{"a setting of limits in a namespace", "namespaces: {a: {timeout: 1s}}", `"timeout" is no setting of a namespace: did you mean the setting of limits? There are`},
	{"two letters exchanged", "namespaces: {a: {qouta: 1MiB}}", `line 1: "qouta" is no setting of a namespace: did you mean quota? There are`},
	{"unknown keys in a merge", "namespaces:\n  a: &a {quote: 1MiB}\n  b: {<<: [*a, *a]}\n", `line 2: "quote" is no setting of a namespace: did you mean quota? There are`},
	{"merge of a number", "node: a\n<<: 5\n", `line 2: <<: map merge requires map or sequence of maps as the value`},
	{"merge of a list of texts", "namespaces:\n  a:\n    <<: [x]\n", `line 3: <<: map merge requires map or sequence of maps as the value`},
	{"merge of a list's alias", "namespaces:\n  a: &a {<<: &b [{}]}\n  b: {<<: *b}\n", `line 3: <<: map merge requires map or sequence of maps as the value`},
	{"two unknown keys", "a: 1\nb: 2\n", `line 2: "b" is no setting`},
	{"keys of the program's own", "version: 1\nlog: 2\nclock: 3\nnosocket: 4\n", `line 4: "nosocket" is no setting`},
	{"no map", "hello", `line 1: give settings, such as node, socket, socket_mode, not "hello"`},
	{"a list", "- l2_size: [1GiB]", "line 1: give settings, such as node, socket, socket_mode, not a list"},
	{"bad unit", "node: a\nl2_size: 5parsec", `line 2: l2_size: size "5parsec": give a number and a unit`},
	{"no unit at all", "max_value: big", `line 1: max_value: size "big": give a number and a unit`},
	{"negative size", "l1_size: -5MiB", `line 1: l1_size: size "-5MiB" is negative`},
	{"size of a namespace", "namespaces:\n  a: {quota: 1MiB}\n  b:\n    quota: 7 quarts\n", `line 4: quota: size "7 quarts"`},
	{"list for a size", "l2_size: [1GiB]", "line 1: l2_size: give a size such as 64MiB or 1GiB, not a list"},
	{"list on the next line", "l2_size:\n  - 1GiB", "line 2: l2_size: give a size such as 64MiB or 1GiB, not a list"},
	{"mode", "socket_mode: rw", `line 1: socket_mode: mode "rw": give octal permission bits`},
	{"map for a mode", "socket_mode: {a: 1}", "line 1: socket_mode: give octal permission bits, such as 0660, not a map"},
	{"word for a number", "max_connections: many", `line 1: max_connections: give a number, not "many"`},
	{"fraction for a number", "max_connections: 1.5", `line 1: max_connections: give a whole number, not "1.5"`},
	{"fraction by alias", "node: &n 1.5\nmax_connections: *n", `line 2: max_connections: give a whole number, not "1.5"`},
	{"number too high", "max_connections: 99999999999999999999", `line 1: max_connections: give a whole number, not "99999999999999999999"`},
	{"number for a bool", "pprof: 7", `line 1: pprof: give true or false, not "7"`},
	{"list for a text", "node: [a, b]", "line 1: node: give text, not a list"},
	{"time without a unit", "request_timeout: 5", `line 1: request_timeout: give a time such as 30s, 2h or 7d, not "5"`},
	{"word for a weight", "weight: much", `line 1: weight: give a number from 0 to 4294967295, not "much"`},
	{"fraction for a weight", "weight: 1.5", `line 1: weight: give a whole number, not "1.5"`},
	{"negative weight", "weight: -1", `line 1: weight: give a number from 0 to 4294967295, not "-1"`},
	{"text for a list", "join: 10.0.0.7:7946", `line 1: join: give a list, such as [this, that], not "10.0.0...."`},
	{"join without a port", "join: [host-a]", `join "host-a": give host:port`},
	{"no key file", "cluster_key_file: /no/such", "cluster_key_file /no/such: no such file"},
	{"a relative key file", "cluster_key_file: such", "cluster_key_file such: give the whole path"},
	{"text for tls", "tls: /c", `line 1: tls: give settings, such as cert, key, ca, not "/c"`},
	{"unknown key of tls", "tls: {crt: /c}", `line 1: "crt" is no setting of tls: did you mean cert? There are cert, key, ca`},
	{"tls without a key", "tls: {cert: /c, key: /p, ca: /r}", "tls.cert is given and cluster_key_file is not: gossip has no certificates"},
	{"pprof at every address", "http: :7948\npprof: true", "http :7948 is not loopback"},
	{"no time", "namespaces:\n  a:\n    default_ttl: soon", `line 3: default_ttl: give a time such as 30s, 2h or 7d, not "soon"`},
	{"list of namespaces", "namespaces: [a]", "line 1: namespaces: give names, each with its value, not a list"},
	{"namespace is no map", "namespaces:\n  a: 5m", `line 2: a: give settings, such as default_ttl, max_staleness, stale_limit, not "5m"`},
	{"unknown key of an origin", "namespaces:\n  a:\n    origin:\n      htpp: {}\n", `line 4: "htpp" is no setting of origin: did you mean http? There are http, postgres, redis, memcached, exec`},
	{"unknown key of a kind", "namespaces:\n  a:\n    origin:\n      redis:\n        password: x\n", `line 5: "password" is no setting of redis: did you mean password_file or password_env? There are address, username, password_file, password_env,`},
	{"unknown key of limits", "namespaces:\n  a:\n    limits:\n      qps: 7\n", `line 4: "qps" is no setting of limits; there are concurrency, queue, queue_time, rate,`},
	{"unknown key of a breaker", "namespaces: {a: {limits: {breaker: {fails: 7}}}}", `line 1: "fails" is no setting of breaker: did you mean failures? There are failures, open, probes`},
	{"text for an origin", "namespaces:\n  a:\n    origin: http", `line 3: origin: give settings, such as http, postgres, redis, not a text`},
	{"list for a kind", "namespaces: {a: {origin: {http: [x]}}}", "line 1: http: give settings, such as url, method, headers, not a list"},
	{"list for headers", "namespaces: {a: {origin: {http: {headers: [x]}}}}", "line 1: headers: give names, each with its value, not a list"},
	{"text for limits", "namespaces: {a: {limits: 7}}", `line 1: limits: give settings, such as concurrency, `},
	{"text for a breaker", "namespaces: {a: {limits: {breaker: 7}}}", `line 1: breaker: give settings, such as failures, open, probes, not "7"`},
	{"text for statuses", "namespaces: {a: {origin: {http: {absent: 404}}}}", `line 1: absent: give a list, such as [this, that], not "404"`},
	{"word for a rate", "namespaces: {a: {limits: {rate: much}}}", `line 1: rate: give a number, not "much"`},
	{"fraction deep inside", "namespaces:\n  a:\n    limits:\n      breaker:\n        probes: 1.5\n", `line 5: probes: give a whole number, not "1.5"`},
	{"fraction in a list", "namespaces: {a: {origin: {http: {absent: [404, 4.5]}}}}", `line 1: absent: give a whole number, not "4.5"`},
	{"fraction in an anchor", "namespaces:\n  a: {origin: &o {exec: {command: [true], absent: 1.5}}}\n  b: {origin: *o}\n", `line 2: absent: give a whole number, not "1.5"`},
	{"jitter out of bounds", "namespaces: {a: {origin: {exec: {command: [true]}}, ttl_jitter: .nan}}", "namespaces.a.ttl_jitter NaN: give 0 to 0.5"},
	{"two origins", "namespaces: {a: {origin: {http: {}, exec: {}}}}", "namespaces.a.origin: http and exec are given: give one of them"},
	{"no origin", "namespaces: {a: {origin: {http: }}}", "namespaces.a.origin: nothing is given"},
	{"no map of known", "namespaces: {a: {existing_keys: 7}}", `existing_keys: give settings, such as keys, false_positives`},
	{"known's setting", "namespaces: {a: {existing_keys: {key: 7}}}", `line 1: "key" is no setting of existing_keys: did you mean keys? There are keys, false_positives`},
	{"no whole path", "namespaces: {a: {origin: {redis: {address: 'h:1', password_file: such}}}}", "password_file: give the whole path, from / on, of a file that contains it"},
	{"a device", "namespaces: {a: {origin: {http: {url: 'http://h/{key}', header_files: {A: /dev/zero}}}}}", "header_files.A /dev/zero: it is no regular file"},
	{"duplicate key", "l2_size: 1GiB\nnode: a\nl2_size: 1GiB\n", "line 3: l2_size is there already, at line 1: leave out one of them"},
	{"duplicate namespace", "namespaces:\n  a: {}\n  a: {}\n", "line 3: a is there already, at line 2"},
	{"duplicate in a namespace", "namespaces:\n  a:\n    quota: 1MiB\n    quota: 1MiB\n", "line 4: quota is there already, at line 3"},
	{"two documents", "node: a\n---\nnode: b\n", `line 2: a second document begins: leave out what is behind "---"`},
	{"broken second document", "node: a\n---\nnode: [\n", "line 3"},
	{"syntax", "node: a\n  socket: b\n", "line 2: mapping values are not allowed"},
	{"tab", "namespaces:\n\ta: {}\n", "line 2: a tab indents the line: YAML takes spaces alone, so give spaces"},
	{"tab behind spaces", "namespaces:\n  a:\n    shared: true\n  b:\n   \tquota: 1MiB\n", "line 5: a tab indents the line"},
	{"tab below a value", "node: a\n\tsocket: b\n", "line 2: a tab indents the line"},
	{"tab in a text", "node: \"a\n\tb\"\ntls: [\n", "line 3: did not find expected node content"},
	{"unclosed", "node: [a", "line 1: did not find expected ',' or ']'"},
	{"NUL", "node: a\x00b", "control characters are not allowed"},
	{"no UTF-8", "node: \xff", "invalid"},
	{"list as a key", "? [a]\n: b\n", "line 1: a key is one word"},
	{"merge of no map", "namespaces:\n  <<: 5\n", "map merge requires map or sequence of maps as the value"},
	{"alias of itself", "node: &a [*a]", "line 1: node: give text, not a list"},
	{"alias of nothing", "node: *a", "unknown anchor 'a' referenced"},
	{"out of bounds", "l2_size: 1MiB", "l2_size 1.0 MiB: give 8.0 MiB to 256 GiB"},
	{"http", "http: nowhere", `http "nowhere": give host:port`},
	{"namespace's name", "namespaces: {Big: {}}", `namespaces.Big: a name is 1 to 64 of`},
	{"huge", "# " + strings.Repeat("x", maxConfig), " has more than 1048576 bytes"},
	{"many entries", "namespaces:\n" + numbered("  n%d: {}\n", maxEntries+1), "line 2: 1025 entries are too many: at most 1024"},
	{"many mistakes", numbered("k%d: 1\n", 500), "500 problems in the configuration"},
	{"many equal keys", strings.Repeat("a: 1\n", 1000), "line 2: a is there already, at line 1"},
	{"deep", "node: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "line 1: more than 32 maps and lists are nested"},
	{"deeper than the parser goes", strings.Repeat("[", 20_000), "exceeded max depth"},
}

// numbered repeats a line with a number in it.
func numbered(line string, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, line, i)
	}
	return b.String()
}

// withoutFile writes "line 7: " in place of "FILE:7: " in messages.
func withoutFile(messages, file string) string {
	placed := regexp.MustCompile("(?m)^" + regexp.QuoteMeta(file) + `:(\d+): `)
	return strings.ReplaceAll(placed.ReplaceAllString(messages, "line $1: "), file+": ", "")
}

// checked reads a file, and returns what the command prints of it: "" if it is right.
func checked(file string) string {
	cfg, err := Load(file)
	if err != nil {
		return err.Error()
	}
	wrong := cfg.FindProblems()
	if len(wrong) == 0 {
		return ""
	}
	return wrong.Error() + "\n" + wrong.Counted()
}

// TestFindProblems checks what is said of right and of wrong files, and that it names no Go type.
func TestFindProblems(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	check := func(text string) string {
		testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
		return checked(file)
	}
	for _, text := range []string{"", "l2_size: 16MiB\n", "http: off", "socket_mode: 0600", "namespaces: {a: {default_ttl: 0s}}",
		"namespaces: {a: {origin: {exec: {command: [true]}}, limits: {rate: 7.5}}}"} {
		if got := check(text); got != "" {
			t.Errorf("%q: %s", text, got)
		}
	}
	counted := regexp.MustCompile(`\n\d+ problems? in the configuration$`)
	for _, tc := range badConfigs {
		t.Run(tc.name, func(t *testing.T) {
			got := withoutFile(check(tc.text), file)
			if !strings.Contains(got, tc.want) || !counted.MatchString(got) && tc.name != "huge" {
				t.Errorf("%.500s\nwant %q", got, tc.want)
			}
			for _, leak := range []string{"yaml", "sidecar.", "configfile.", "!!"} {
				if strings.Contains(got, leak) {
					t.Errorf("%.500s\nspeaks of %q", got, leak)
				}
			}
		})
	}
	checkKinds(t, reflect.TypeFor[File]())
}

// checkKinds checks that messages have words for the values of a type, and of the types
// inside.
func checkKinds(t *testing.T, typ reflect.Type) {
	if kind(typ) == "text" && typ.Kind() != reflect.String && !reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()) {
		t.Errorf("nothing is said of what to give for %s", typ)
	}
	switch typ.Kind() {
	case reflect.Map, reflect.Slice:
		checkKinds(t, typ.Elem())
	case reflect.Struct:
		for _, f := range fields(typ) {
			checkKinds(t, inner(f.typ))
		}
	}
}

// TestAliasBomb checks that aliases that double at each step are stopped before there are
// a billion.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("namespaces:\n  n0: &n0 {default_ttl: 1s, quota: 1MiB}\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "  n%d: &n%d {<<: [*n%d, *n%d]}\n", i, i, i-1, i-1)
	}
	merges := b.String()
	lists := "a0: &a0 [x, x]\n"
	for i := 1; i < 40; i++ {
		lists += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i, i, i-1, i-1)
	}
	for name, text := range map[string]string{"merges": merges, "lists": lists, "lists where a text stands": lists + "node: *a39\n"} {
		done := make(chan error, 1)
		go func() { // ends with parsed
			_, err := parsed([]byte(text))
			done <- err
		}()
		select {
		case err := <-done:
			if err == nil {
				t.Errorf("%s: accepted", name)
			}
		case <-testenv.Expired():
			t.Fatalf("%s: it does not end", name)
		}
	}
}
