package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
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
	testenv.Must(t, os.WriteFile(file, []byte(shownFile), 0o600))
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
	testenv.Must(t, os.WriteFile(again, []byte(text), 0o600))
	first, err := configOf(t, args[2:]...)
	testenv.Must(t, err)
	t.Setenv("CACHESIDECAR_WEIGHT", "")
	second, err := configOf(t, "--config", again)
	testenv.Must(t, err)
	values := func(c configfile.File) map[string]any {
		list, err := c.ListSettings(false)
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
	var list []configfile.ShownSetting
	testenv.Must(t, json.Unmarshal([]byte(mustRun(t, "config", "show", "--json")), &list))
	var names []string
	for _, s := range list {
		names = append(names, s.Setting)
		if s.Source != "default" && s.Setting != "socket" {
			t.Errorf("%+v", s)
		}
	}
	for _, name := range flagNames(configfile.Flags()) {
		key := strings.ReplaceAll(name, "-", "_")
		if !slices.Contains(names, key) && !strings.HasPrefix(key, "tls_") && key != "config" {
			t.Errorf("%s is missing", key)
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
	testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
	want := configfile.Parse([]byte(text))
	out := mustRun(t, "config", "show", "--changed", "--config", file)
	if got := configfile.Parse([]byte(out)); got.Wrong != nil || len(got.Feeds) != 1 || !reflect.DeepEqual(got.Feeds, want.Feeds) {
		t.Errorf("%v, %+v\n%s", got.Wrong, got.Feeds, out)
	}
}
