package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/sidecar"
)

const shownFile = `l2_size: 500MB
max_staleness: 1s
access: {"*": {read: [anyone], write: []}}
tokens: {web: {file: /etc/web.token}}
namespaces:
  users: &u
    default_ttl: 7d
    limits: {rate: 50}
    origin:
      http:
        url: "http://127.0.0.1:1/{key}"
        headers: {X-Api-Key: hunter2, Accept: text/plain}
        header_files: {Authorization: /etc/users.auth}
  exec:
    key_pattern: "^a: #[0-9]+\\n$"
    origin: {exec: {command: [/bin/echo, "a, b", "#x", "http://u:hunter2@h/"], env: [DB_PASSWORD=hunter2, LANG=C, SECRET_NAME]}}
    existing_keys: {keys: 5, command: [/bin/true]}
  copy: *u
  db:
    origin: {postgres: {dsn_env: USERS_DSN, query: "SELECT 'ü' -- \u0007\nFROM t WHERE id = $1"}}
    write_through: true
`

// TestGoldenConfigShow checks what config show prints, and that run would take it.
func TestGoldenConfigShow(t *testing.T) {
	dir := tempDir(t)
	file := filepath.Join(dir, "c.yaml")
	if err := os.WriteFile(file, []byte(shownFile), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("XDG_RUNTIME_DIR", "")
	t.Setenv("CACHESIDECAR_SOCKET", filepath.Join(dir, "s"))
	t.Setenv("CACHESIDECAR_WEIGHT", "7")
	args := []string{"config", "show", "--config", file, "--node", "n1", "--max-value=1048577", "--insecure", "--bind", "10.0.0.1:7"}
	show := func(name string, more ...string) string {
		t.Helper()
		o := command(t, "", append(args, more...)...)
		if o.status != exitDone || o.err != "" || strings.Contains(o.out, "hunter2") {
			t.Errorf("%v", o)
		}
		if name != "" {
			goldenText(t, name, strings.ReplaceAll(o.out, dir, "DIR"))
		}
		return o.out
	}
	text := show("config_show.yaml")
	show("config_show.json", "--changed", "--json")
	again := filepath.Join(dir, "again.yaml")
	if err := os.WriteFile(again, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	first, err := configOf(t, args[2:]...)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("CACHESIDECAR_WEIGHT", "")
	second, err := configOf(t, "--config", again)
	if err != nil {
		t.Fatal(err)
	}
	values := func(c fileConfig) map[string]any {
		list, err := c.effective(false)
		if err != nil {
			t.Error(err)
		}
		all := map[string]any{}
		for _, s := range list {
			all[s.Setting] = s.Value
		}
		return all
	}
	a, b := values(first), values(second)
	for key := range a {
		if !reflect.DeepEqual(a[key], b[key]) {
			t.Errorf("%s: %v, and from the output %v", key, a[key], b[key])
		}
	}
	if len(a) != len(b) {
		t.Errorf("%d settings, and %d from the output", len(a), len(b))
	}
}

// TestConfigShowNames checks that config show has every setting that a flag can give, and
// that with --changed it has none without a reason.
func TestConfigShowNames(t *testing.T) {
	var list []shownSetting
	if err := json.Unmarshal([]byte(mustRun(t, "config", "show", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range list {
		names = append(names, s.Setting)
		if s.Source != "default" && s.Setting != "socket" {
			t.Errorf("%+v", s)
		}
	}
	for _, s := range flagSettings(reflect.ValueOf(new(fileConfig)).Elem(), "") {
		if !strings.Contains(strings.Join(names, " "), s.key) && !strings.HasPrefix(s.key, "tls.") {
			t.Errorf("%s is missing", s.key)
		}
	}
	o := command(t, "", "config", "show", "--changed", "--l1-size", "7", "--http", "nowhere")
	if o.status != exitMiss || !strings.Contains(o.out, "# flag --http\n") || !strings.Contains(o.err, "--l1-size: l1_size 7 B: give") ||
		!strings.Contains(o.err, "cachesidecar: 2 problems in the configuration") {
		t.Errorf("%v", o)
	}
}

// TestConfigShowFeeds checks that config show has the feeds, as a file has them.
func TestConfigShowFeeds(t *testing.T) {
	t.Setenv("X", "postgres://u@127.0.0.1/d")
	file := filepath.Join(tempDir(t), "c.yaml")
	text := "changes: {f: {max_lag: 10s, postgres: {dsn_env: X, tables: {a.b: {namespace: n, key: '{id}'}}}}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	want, _ := parsed([]byte(text))
	out := mustRun(t, "config", "show", "--changed", "--config", file)
	if got, err := parsed([]byte(out)); err != nil || len(got.Feeds) != 1 || !reflect.DeepEqual(got.Feeds, want.Feeds) {
		t.Errorf("%v, %+v\n%s", err, got.Feeds, out)
	}
}

func TestMasked(t *testing.T) {
	for _, tc := range []struct {
		name        string
		value, want any
	}{
		{"url", "http://h:80/{key}", "http://h:80/{key}"},
		{"url", "http://u:p@h:80/{key}", "http://u:(hidden)@h:80/{key}"},
		{"x", "host=h password=abc user=u", "host=h password=(hidden) user=u"},
		{"password_file", "/a", "/a"}, {"dsn_env", "USERS", "USERS"}, {"X-Auth-Token", "abc", "(hidden)"}, {"header_files.Authorization", "/etc/a", "/etc/a"},
		{"headers.X-Api-Key", "/9j4AA", "(hidden)"}, {"url", "http://h/{key}?v=1&api_key=abc", "http://h/{key}?v=1&api_key=(hidden)"},
		{"x", "password='a b@c' user=u", "password=(hidden) user=u"},
		{"env", []string{"A=b", "API_KEY=c", "B"}, []string{"A=b", "API_KEY=(hidden)", "B"}}, {"keys", 7, 7},
		{"command", []string{"get", "--token", "abc", "--api-key=abc", "--as", "b=c"}, []string{"get", "--token", "(hidden)", "--api-key=(hidden)", "--as", "b=c"}},
	} {
		if got := masked(strings.Split(tc.name, "."), tc.value); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v: %v, want %v", tc.name, tc.value, got, tc.want)
		}
	}
}

// FuzzScalar checks that YAML reads back what scalar writes, on one line.
func FuzzScalar(f *testing.F) {
	for _, seed := range []string{"", "off", "0660", "a: b # c", "\n", "ü\u0007", "'", `"`, "~", "1e3", "<<", "- a"} {
		f.Add(seed, int64(len(seed)))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		line := "node: " + scalar(text) + " # c\nvoters: " + scalar([]string{text}) + " # c\n"
		cfg, err := parsed([]byte(line))
		if text = string([]rune(text)); err != nil || cfg.Node != text || cfg.Voters[0] != text || strings.Count(line, "\n") != 2 {
			t.Errorf("%q: %q, %v, %q", text, line, err, cfg.Node)
		}
		var back sidecar.Size
		if s := sidecar.Size(max(size, 0) & (1<<62 - 1)); s < 1<<50 && (back.Set(s.Text()) != nil || back != s) {
			t.Errorf("%d is written as %s, and reads back as %d", s, s.Text(), back)
		}
		if d := time.Duration(max(size, 0)); strings.Contains(plainValue(reflect.ValueOf(d)).(string), " ") {
			t.Errorf("%v", d)
		}
	})
}

// TestScalarEscapes checks that a character above U+FFFF that cannot be printed is no pair
// of surrogates, which YAML does not know.
func TestScalarEscapes(t *testing.T) {
	if got, want := scalar("a\U000da4d3\u0007"), `"a\U000da4d3\u0007"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
