package configfile

import (
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/peer"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// readDoc returns a page of docs.
func readDoc(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	testenv.Must(t, err)
	return string(b)
}

// configRows returns the rows of docs/CONFIG.md's tables, by key.
func configRows(t *testing.T) map[string][]string {
	t.Helper()
	rows := map[string][]string{}
	for _, line := range strings.Split(readDoc(t, "CONFIG.md"), "\n") {
		if strings.HasPrefix(line, "| `") {
			cells := strings.Split(strings.Trim(line, "| "), "|")
			for i := range cells {
				cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "`", "")
			}
			if rows[cells[0]] == nil { // a namespace may have a setting of the same name
				rows[cells[0]] = cells
			}
		}
	}
	return rows
}

// TestConfigDoc checks that docs/CONFIG.md has a row for each setting, with its default, and that
// what the page says of the names of flags and variables is true of all.
func TestConfigDoc(t *testing.T) {
	rows := configRows(t)
	for _, f := range Flags() {
		name := f.Names()[0]
		row := rows[fileKey(name)]
		if name == "config" {
			continue
		}
		if len(row) != 6 {
			t.Errorf("%s: the row is %q, want six cells", fileKey(name), row)
			continue
		}
		dashes := strings.NewReplacer("_", "-", ".", "-").Replace(row[0])
		lines := strings.ToUpper(strings.ReplaceAll(row[0], ".", "_"))
		if name != dashes || EnvName(name) != "CACHESIDECAR_"+lines {
			t.Errorf("%s: flag %s, variable %s", row[0], name, EnvName(name))
		}
		want := ""
		switch f := f.(type) {
		case *cli.StringFlag:
			want = f.DefaultText
		case *cli.IntFlag:
			want = f.DefaultText
		case *cli.UintFlag:
			want = f.DefaultText
		case *cli.GenericFlag:
			want = f.DefaultText
		case *cli.StringSliceFlag:
			want = "none"
		case *cli.BoolFlag:
			want = "false"
		}
		if !strings.HasPrefix(strings.ReplaceAll(row[2], "_", "-"), strings.ReplaceAll(want, "--", "")) {
			t.Errorf("%s: the default is told as %q, the flag says %q", row[0], row[2], want)
		}
	}
	known := append(paths(reflect.TypeFor[File](), ""), paths(reflect.TypeFor[Namespace](), "")...)
	known = append(known, paths(reflect.TypeFor[Feed](), "changes.")...)
	for _, key := range known {
		if _, ok := rows[key]; !ok && key != "namespaces" && key != "limits" && key != "tls" && key != "changes" {
			t.Errorf("the page does not tell of %s", key)
		}
	}
	for key := range rows {
		if !slices.Contains(known, key) {
			t.Errorf("the page tells of %s, which there is not", key)
		}
	}
}

// paths returns the settings of a type and of the types inside, such as origin.http.url.
// A kind of origin is not a setting, but a table of settings.
func paths(t reflect.Type, before string) (list []string) {
	for _, f := range fields(t) {
		path := before + f.name
		within := inner(f.typ).Kind() == reflect.Struct
		if !within || before == "" {
			list = append(list, path)
		}
		if within {
			list = append(list, paths(inner(f.typ), path+".")...)
		}
	}
	return list
}

// TestConfigDocBounds checks that the bounds in docs/CONFIG.md are those that Check
// enforces.
func TestConfigDocBounds(t *testing.T) {
	rows := configRows(t)
	for _, tc := range []struct{ key, least, below, most, above string }{
		{"socket_mode", "0001", "", "0777", "1777"},
		{"l1_size", "1MiB", "1048575", "1TiB", "1099511627777"},
		{"l2_size", "8MiB", "8388607", "256GiB", "274877906945"},
		{"max_value", "1B", "-1", "1GiB", "1073741825"},
		{"buffer_size", "16MiB", "16777215", "64GiB", "65GiB"},
		{"max_namespaces", "1", "-1", "256", "257"},
		{"max_connections", "1", "-1", "1048576", "1048577"},
		{"request_timeout", "1ms", "999us", "1h", "3600001ms"},
		{"weight", "1", "-1", "4294967295", "4294967296"},
		{"max_staleness", "500ms", "499ms", "1m", "60001ms"},
		{"max_clock_skew", "1ms", "999us", "1m", "60001ms"},
		{"default_ttl", "0s", "-1ms", "8760h", "8761h"},
		{"quota", "64KiB", "65535", "", "1TiB"},
	} {
		check := func(value string, right bool) {
			if value == "" {
				return
			}
			text := "ignore_memory_limit: true\n"
			switch tc.key {
			case "default_ttl", "quota":
				text += "namespaces: {a: {" + tc.key + ": " + value + "}}\n"
			case "buffer_size":
				text += "max_value: 1MiB\n" + tc.key + ": " + value + "\n"
			case "max_value":
				text += "l2_size: 17GiB\n" + tc.key + ": " + value + "\n"
			default:
				text += tc.key + ": " + value + "\n"
			}
			cfg, err := parsed([]byte(text))
			if err == nil {
				err = cfg.Check()
			}
			if (err == nil) != right {
				t.Errorf("%s: %s: %v, want it to be right: %v", tc.key, value, err, right)
			}
		}
		check(tc.least, true)
		check(tc.below, false)
		check(tc.most, true)
		check(tc.above, false)
		if row := rows[tc.key]; len(row) < 4 || !strings.HasPrefix(row[3], tc.least) || !strings.Contains(row[3], tc.most) {
			t.Errorf("%s: the page says %q, want %s to %s", tc.key, row, tc.least, tc.most)
		}
	}
	// The documented defaults are the actual ones.
	var l1, l2 sidecar.Size
	if l1.Set(rows["l1_size"][2]) != nil || l2.Set(rows["l2_size"][2]) != nil || l1 != sidecar.DefaultL1Size || l2 != sidecar.DefaultL2Size {
		t.Errorf("the defaults of the sizes are told as %v and %v", l1, l2)
	}
	if sidecar.DefaultTimeout.String() != rows["request_timeout"][2] || sidecar.DefaultTTL.String() != rows["default_ttl"][2]+"0m0s" {
		t.Errorf("the defaults of the times are told as %s and %s", rows["request_timeout"][2], rows["default_ttl"][2])
	}
}

// TestConfigDocOriginBounds does the same for the settings of a namespace with an origin:
// the page names the maximum and the actual default.
func TestConfigDocOriginBounds(t *testing.T) {
	rows := configRows(t)
	for _, tc := range []struct{ key, most, above, below, least string }{
		{"replica_lag", "10m", "10m1ms", "-1s", "0s"},
		{"lease_time", "10m", "10m1ms", "99ms", "100ms"},
		{"max_key", "1024B", "1025B", "-1B", "1B"},
		{"negative_ttl", "8760h", "8761h", "-1s", "0s"},
		{"ttl_jitter", "0.5", "0.51", "-0.1", "0"},
		{"refresh_early", "10", "10.1", "-1", "0"},
		{"audit", "100%", "100.1%", "-1%", "0%"},
		{"limits.concurrency", "65536", "65537", "-1", "1"},
		{"limits.queue", "1048576", "1048577", "-1", "1"},
		{"limits.queue_time", "30s", "31s", "-1s", "1ms"},
		{"limits.rate", "1e9", "1.1e9", "-1", "0.1"},
		{"limits.burst", "1048576", "1048577", "-1", "1"},
		{"limits.timeout", "30s", "31s", "-1s", "1ms"},
		{"limits.breaker.failures", "1048576", "1048577", "-1", "1"},
		{"limits.breaker.open", "10m", "10m1ms", "-1s", "1ms"},
		{"limits.breaker.probes", "1024", "1025", "-1", "1"},
		{"limits.retries", "10", "11", "-1", "1"},
		{"limits.retry_share", "1", "1.1", "-0.1", "0.5"},
		{"origin.http.absent", "599", "600", "199", "200"},
		{"origin.http.connections", "65536", "65537", "-1", "1"},
		{"origin.postgres.connections", "65536", "65537", "-1", "1"},
		{"origin.redis.db", "65536", "65537", "-1", "0"},
		{"origin.redis.connections", "65536", "65537", "-1", "1"},
		{"origin.memcached.connections", "65536", "65537", "-1", "1"},
		{"origin.exec.absent", "255", "256", "-1", "1"},
	} {
		for value, right := range map[string]bool{tc.most: true, tc.above: false, tc.below: false, tc.least: true} {
			cfg, err := parsed([]byte(withFiles(t, originWith(tc.key, value))))
			if err == nil {
				err = cfg.Check()
			}
			if (err == nil) != right {
				t.Errorf("%s: %s: %v, want it to be right: %v", tc.key, value, err, right)
			}
		}
		if row := rows[tc.key]; len(row) < 4 || !strings.Contains(row[3], tc.most) {
			t.Errorf("%s: the page says %q, want the most to be %s", tc.key, row, tc.most)
		}
	}
	for key, want := range map[string]string{
		"stale_limit": sidecar.DefaultStaleLimit.String(), "negative_ttl": sidecar.DefaultNegativeTTL.String(),
		"ttl_jitter": fmt.Sprint(sidecar.DefaultTTLJitter), "refresh_early": fmt.Sprint(sidecar.DefaultRefreshEarly),
		"lease_time": sidecar.DefaultLeaseTime.String(),
	} {
		if got := rows[key][2]; got != want && got+"0s" != want {
			t.Errorf("%s: the default is told as %s, and is %s", key, got, want)
		}
	}
}

// originWith returns a file that sets only what an origin needs, and one more setting.
func originWith(key, value string) string {
	origins := map[string]string{
		"http": "url: 'http://h/{key}'", "postgres": "dsn_file: /etc/cachesidecar/dsn, query: SELECT $1", "redis": "address: 'h:1'",
		"memcached": "servers: ['h:1']", "exec": "command: ['true']",
	}
	kind, settings := "exec", ""
	if rest, ok := strings.CutPrefix(key, "origin."); ok {
		kind, key, _ = strings.Cut(rest, ".")
		if key == "absent" && kind == "http" {
			value = "[" + value + "]"
		}
		origins[kind] += ", " + key + ": " + value
	} else {
		path := strings.Split(key, ".")
		settings = path[len(path)-1] + ": " + value
		for i := len(path) - 2; i >= 0; i-- {
			settings = path[i] + ": {" + settings + "}"
		}
		settings = ", " + settings
	}
	return "namespaces: {a: {origin: {" + kind + ": {" + origins[kind] + "}}" + settings + "}}\n"
}

// TestDocExamples checks that the configuration files in the pages are valid once the
// files that they name exist.
func TestDocExamples(t *testing.T) {
	all := strings.Join(docExamples(t), "")
	for _, kind := range settingNames(reflect.TypeFor[Origin]()) {
		if !strings.Contains(all, "\n      "+kind+":\n") {
			t.Errorf("there is no example of origin %s", kind)
		}
	}
	for _, example := range docExamples(t) {
		cfg, err := parsed([]byte(withFiles(t, example)))
		if err == nil {
			err = cfg.Check()
		}
		if err != nil {
			t.Errorf("%v\n%s", err, example)
		}
	}
}

// docExamples returns the configuration files in the pages.
func docExamples(t testing.TB) (list []string) {
	t.Helper()
	for _, pattern := range []string{"../../*.md", "../../docs/*.md"} {
		pages, err := filepath.Glob(pattern)
		testenv.Must(t, err)
		for _, page := range pages {
			b, err := os.ReadFile(page)
			testenv.Must(t, err)
			for _, rest := range strings.Split(string(b), "```yaml\n")[1:] {
				example, _, _ := strings.Cut(rest, "```")
				list = append(list, example)
			}
		}
	}
	if len(list) == 0 {
		t.Fatal("the pages show no configuration file")
	}
	return list
}

var namedFile = regexp.MustCompile(`/(etc/cachesidecar|usr/local/bin)/([a-z.-]+)`)

// withFiles creates the files that a configuration names, in a folder of the test, and
// replaces the users and groups that it names by root.
func withFiles(t testing.TB, text string) string {
	t.Helper()
	dir := t.TempDir()
	for _, m := range namedFile.FindAllStringSubmatch(text, -1) {
		text := "postgres://user:password@host/database\n"
		if m[2] == "cluster.key" {
			text = peer.NewKeyFile()
		}
		testenv.Must(t, os.WriteFile(filepath.Join(dir, m[2]), []byte(text), 0o700))
	}
	text = namedPerson.ReplaceAllString(text, "${1}0")
	return namedFile.ReplaceAllString(text, dir+"/$2")
}

// namedPerson matches a user or a group in an example; tests use root instead.
var namedPerson = regexp.MustCompile(`\b(user:|group:|admin_group: )[a-z][a-z-]*`)
