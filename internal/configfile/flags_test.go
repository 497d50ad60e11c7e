package configfile

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// runSettings lists the settings that can be set in all three ways: the value in the
// file, in the environment and in the flag, and the resulting configuration.
var runSettings = map[string]struct {
	file, env, flag             string
	wantFile, wantEnv, wantFlag string
}{
	"node":                {"a", "b", "c", "a", "b", "c"},
	"socket":              {"/a", "/b", "/c", "/a", "/b", "/c"},
	"socket-mode":         {"0600", "0606", "0666", "0600", "0606", "0666"},
	"socket-group":        {"1", "2", "3", "1", "2", "3"},
	"admin-group":         {"1", "2", "3", "1", "2", "3"},
	"l1-size":             {"1MiB", "2MiB", "3MiB", "1.0 MiB", "2.0 MiB", "3.0 MiB"},
	"l2-size":             {"10MiB", "20MiB", "30MiB", "10 MiB", "20 MiB", "30 MiB"},
	"shared-size":         {"2MiB", "off", "4MiB", "2.0 MiB", "off", "4.0 MiB"},
	"keep-memory":         {"true", "false", "true", "true", "false", "true"},
	"max-value":           {"1kB", "2kB", "3kB", "1000 B", "2.0 KiB", "2.9 KiB"},
	"buffer-size":         {"40MiB", "50MiB", "60MiB", "40 MiB", "50 MiB", "60 MiB"},
	"max-namespaces":      {"1", "2", "3", "1", "2", "3"},
	"max-connections":     {"1", "2", "3", "1", "2", "3"},
	"request-timeout":     {"1s", "2s", "3s", "1s", "2s", "3s"},
	"bind":                {"127.0.0.1:1", "127.0.0.1:2", "off", "127.0.0.1:1", "127.0.0.1:2", "off"},
	"peer-bind":           {"127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"},
	"advertise":           {"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1", "10.0.0.2", "10.0.0.3"},
	"join":                {"[a:1, b:1]", "a:2, b:2", "a:3,b:3,c:3", "[a:1 b:1]", "[a:2 b:2]", "[a:3 b:3 c:3]"},
	"cluster":             {"a", "b", "c", "a", "b", "c"},
	"partition-policy":    {"available", "consistent", "available", "available", "consistent", "available"},
	"voters":              {"[a, b, c]", "d, e, f", "g,h,i", "[a b c]", "[d e f]", "[g h i]"},
	"cluster-key-file":    {"/a", "/b", "/c", "/a", "/b", "/c"},
	"tls-cert":            {"/a", "/b", "/c", "/a", "/b", "/c"},
	"tls-key":             {"/a", "/b", "/c", "/a", "/b", "/c"},
	"tls-ca":              {"/a", "/b", "/c", "/a", "/b", "/c"},
	"insecure":            {"true", "false", "true", "true", "false", "true"},
	"alone-ok":            {"true", "false", "true", "true", "false", "true"},
	"adaptive-weight":     {"true", "false", "true", "true", "false", "true"},
	"weight":              {"1", "2", "3", "1", "2", "3"},
	"max-staleness":       {"1s", "2s", "3s", "1s", "2s", "3s"},
	"leave-time":          {"1s", "2s", "3s", "1s", "2s", "3s"},
	"max-clock-skew":      {"1s", "2s", "3s", "1s", "2s", "3s"},
	"memcached":           {"/a", "/b", "/c", "/a", "/b", "/c"},
	"memcached-namespace": {"a", "b", "c", "a", "b", "c"},
	"memcached-delimiter": {"/", "!", "+", "/", "!", "+"},
	"http":                {"off", "127.0.0.1:1", "127.0.0.1:2", "off", "127.0.0.1:1", "127.0.0.1:2"},
	"http-hosts":          {"[a, b]", "c, d", "e,f", "[a b]", "[c d]", "[e f]"},
	"http-token-file":     {"/a", "/b", "/c", "/a", "/b", "/c"},
	"pprof":               {"true", "false", "true", "true", "false", "true"},
	"ignore-memory-limit": {"true", "false", "true", "true", "false", "true"},
	"log-format":          {"text", "json", "text", "text", "json", "text"},
	"log-level":           {"debug", "warn", "error", "debug", "warn", "error"},
}

// configOf builds a configuration from a command line.
func configOf(t *testing.T, args ...string) (cfg File, err error) {
	t.Helper()
	app := &cli.App{Flags: Flags(), Writer: io.Discard, ErrWriter: io.Discard, Action: func(c *cli.Context) (err error) {
		cfg, err = Merge(c)
		return cmp.Or(err, cfg.Wrong.OrNil())
	}}
	err = app.RunContext(context.Background(), append([]string{"run"}, args...))
	return cfg, err
}

// valueOf returns a configuration's value for a key of the file, as text.
func valueOf(cfg File, key string) string {
	v := reflect.ValueOf(cfg)
	for _, name := range strings.Split(key, ".") {
		for _, f := range reflect.VisibleFields(v.Type()) {
			if f.Tag.Get("yaml") == name {
				v = v.FieldByIndex(f.Index)
				break
			}
		}
	}
	if v.Type() == reflect.TypeOf(cfg) {
		return "no such key"
	}
	return fmt.Sprint(v.Interface())
}

// fileKey returns a flag's name in the file, with a dot for settings of tls.
func fileKey(flag string) string {
	key := strings.ReplaceAll(flag, "-", "_")
	if within, ok := strings.CutPrefix(key, "tls_"); ok {
		return "tls." + within
	}
	return key
}

// fileKeys returns all keys that a file may have, with a dot for those of tls.
func fileKeys() (keys []string) {
	for _, key := range settingNames(reflect.TypeFor[File]()) {
		if key != "tls" {
			keys = append(keys, key)
		}
	}
	for _, key := range settingNames(reflect.TypeFor[sidecar.TLSFiles]()) {
		keys = append(keys, "tls."+key)
	}
	return keys
}

// fileLine returns a file with one setting.
func fileLine(key, value string) string {
	if part, within, ok := strings.Cut(key, "."); ok {
		return fmt.Sprintf("%s: {%s: %s}\n", part, within, value)
	}
	return fmt.Sprintf("%s: %s\n", key, value)
}

// ofProcess are the flags that are no settings.
var ofProcess = map[string]bool{"config": true}

func runFlagNames() []string { return namesOf(Flags()) }

// TestThreeWaysAgree checks that flags, environment and file have the same settings under
// the same names.
func TestThreeWaysAgree(t *testing.T) {
	keys := fileKeys()
	for _, f := range Flags() {
		name := f.Names()[0]
		vars := f.(cli.DocGenerationFlag).GetEnvVars()
		if want := "CACHESIDECAR_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")); !slices.Equal(vars, []string{want}) {
			t.Errorf("--%s has the environment variables %q, want %q", name, vars, want)
		}
		if inFile := slices.Contains(keys, fileKey(name)); inFile == ofProcess[name] {
			t.Errorf("--%s: the file has %s: %v", name, fileKey(name), inFile)
		}
		if _, ok := runSettings[name]; !ok && !ofProcess[name] {
			t.Errorf("--%s is missing from the test's table", name)
		}
	}
	for _, key := range keys {
		if flag := strings.NewReplacer("_", "-", ".", "-").Replace(key); !slices.Contains([]string{"namespaces", "access", "tokens", "changes"}, key) && !slices.Contains(runFlagNames(), flag) {
			t.Errorf("the file has %s, and there is no --%s", key, flag)
		}
	}
	for key := range settingFlags {
		if !slices.Contains(keys, key) {
			t.Errorf("there is help for %s, which is no setting", key)
		}
	}
	for name := range runSettings {
		if !slices.Contains(runFlagNames(), name) {
			t.Errorf("the test's table has %s, and there is no such flag", name)
		}
	}
}

func TestPrecedence(t *testing.T) {
	testenv.Takes(t, time.Second)
	dir := t.TempDir()
	for name, s := range runSettings {
		t.Run(name, func(t *testing.T) {
			key := fileKey(name)
			file := filepath.Join(dir, key)
			testenv.Must(t, os.WriteFile(file, []byte(fileLine(key, s.file)), 0o600))
			flag := "--" + name + "=" + s.flag
			nothing, err := configOf(t)
			testenv.Must(t, err)
			check := func(what, want string, args ...string) {
				t.Helper()
				cfg, err := configOf(t, args...)
				if got := valueOf(cfg, key); err != nil || got != want {
					t.Errorf("%s: %q, %v, want %q", what, got, err, want)
				}
			}
			check("file", s.wantFile, "--config", file)
			check("flag", s.wantFlag, flag)
			check("flag over file", s.wantFlag, "--config", file, flag)
			t.Setenv(EnvName(name), s.env)
			check("environment", s.wantEnv)
			check("environment over file", s.wantEnv, "--config", file)
			check("flag over environment", s.wantFlag, flag)
			check("flag over both", s.wantFlag, flag, "--config", file)
			t.Setenv("CACHESIDECAR_CONFIG", file)
			check("environment over file of the environment", s.wantEnv)
			t.Setenv(EnvName(name), "")
			check("an empty variable is none", s.wantFile)
			check("flag over an empty variable", s.wantFlag, flag)
			t.Setenv("CACHESIDECAR_CONFIG", "")
			check("neither", valueOf(nothing, key))
		})
	}
}

// TestJoinRepeats checks that --join may be repeated, each time with one address or
// several.
func TestJoinRepeats(t *testing.T) {
	cfg, err := configOf(t, "--join", "a:1,b:1", "--join=c:1", "--join", " d:1 ")
	if want := []string{"a:1", "b:1", "c:1", "d:1"}; err != nil || !slices.Equal(cfg.Join, want) {
		t.Errorf("%q, %v, want %q", cfg.Join, err, want)
	}
}

// TestSettingsStandTogether checks that the settings of a file and of flags are combined,
// and that --config overrides $CACHESIDECAR_CONFIG.
func TestSettingsStandTogether(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
		return file
	}
	t.Setenv("CACHESIDECAR_CONFIG", write("a", "node: from-environment-file\n"))
	t.Setenv("CACHESIDECAR_MAX_CONNECTIONS", "77")
	cfg, err := configOf(t, "--config", write("b", "node: n\nl2_size: 16MiB\nnamespaces: {a: {quota: 1MiB}}\n"), "--pprof", "--l2-size", "32MiB")
	testenv.Must(t, err)
	if cfg.Node != "n" || cfg.L2Size != 32<<20 || !cfg.Pprof || cfg.MaxConnections != 77 || cfg.Namespaces["a"].Quota != 1<<20 || cfg.HTTP != DefaultHTTP {
		t.Errorf("%+v", cfg)
	}
}
