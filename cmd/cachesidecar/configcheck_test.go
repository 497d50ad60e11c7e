package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// goldenText compares a text with a file in testdata, or writes it.
func goldenText(t *testing.T, name, got string) {
	t.Helper()
	name = filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal([]byte(got), want) {
		t.Errorf("got:\n%s\nwant, as in %s (-update writes it anew):\n%s", got, name, want)
	}
}

// TestGoldenConfigCheck checks that everything that is wrong with a file is reported at
// once, each with its line, and that run says the same with flags and variables.
func TestGoldenConfigCheck(t *testing.T) {
	dir := tempDir(t)
	file := filepath.Join(dir, "c.yaml")
	bad, err := os.ReadFile("testdata/config_bad.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bad, 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(name, out string) {
		t.Helper()
		goldenText(t, name, strings.ReplaceAll(out, file, "FILE"))
	}
	o := command(t, "", "config", "check", file)
	if o.status != exitMiss || o.out != "" {
		t.Errorf("%v", o)
	}
	check("config_check.txt", o.err)
	if n := strings.Count(o.err, "\n"+file) + 1; !strings.HasSuffix(o.err, "\ncachesidecar: "+make(problems, n).counted()+"\n") {
		t.Errorf("%d lines, and the count is another one: %s", n, o.err)
	}
	o = command(t, "", "config", "check", "--json", file)
	if o.status != exitMiss || o.err != "" {
		t.Errorf("%v", o)
	}
	check("config_check.json", o.out)
	t.Setenv("CACHESIDECAR_NODE", "two words")
	t.Setenv("CACHESIDECAR_L1_SIZE", "x")
	o = command(t, "", "run", "--config", file, "--socket", filepath.Join(dir, "s"), "--max-connections", "-1", "--l2-size", "7")
	if o.status != exitUsage || o.out != "" {
		t.Errorf("%v", o)
	}
	check("config_run.txt", o.err)
}

// TestEveryBoundHasALine checks that a value that is out of bounds is found at its line,
// for each setting that flags can give.
func TestEveryBoundHasALine(t *testing.T) {
	for key, value := range map[string]string{
		"node": "'a b'", "l1_size": "1", "l2_size": "1", "max_value": "2TiB", "buffer_size": "1", "max_namespaces": "999",
		"max_connections": "-1", "request_timeout": "2h", "bind": "x", "cluster": "'a b'", "partition_policy": "x", "voters": "[a]",
		"cluster_key_file": "/no/such", "tls": "{key: /k}", "max_staleness": "1h", "max_clock_skew": "1h", "http": "x", "http_hosts": "[a/b]",
		"http_token_file": "/no/such", "admin_group": "no-such-group", "log_format": "x", "log_level": "x", "join": "[x]",
	} {
		cfg, err := parsed([]byte("\n\n" + key + ": " + value + "\n"))
		if err != nil {
			t.Fatal(key, err)
		}
		list := cfg.check()
		if len(list) == 0 || list[0].Line != 3 || !strings.HasPrefix(list[0].Setting, key) {
			t.Errorf("%s: %+v", key, list)
		}
	}
}

// TestSettingOf checks which setting a message names.
func TestSettingOf(t *testing.T) {
	for text, want := range map[string]string{
		"l2_size 1 B: give more":                             "l2_size",
		"namespace a.b: quota 1 B":                           "namespaces.a.b.quota",
		`namespace "A b": a name is`:                         "namespaces.A b",
		"namespace a: limits.breaker.open 1h: give":          "namespaces.a.limits.breaker.open",
		"namespace a: origin.http: url: it has":              "namespaces.a.origin.http.url",
		"namespace a: origin.http: header_files: A-B /x: no": "namespaces.a.origin.http.header_files",
		"namespace a: origin: http and exec are given":       "namespaces.a.origin.http",
		"access: users: read: no":                            "access.users.read",
		"access: namespace x is reserved":                    "access",
		"tokens: a.b: file /x: no":                           "tokens.a.b.file",
		"tls.cert /x: no":                                    "tls.cert",
		"301 namespaces are configured":                      "",
		"":                                                   "",
		"namespace ":                                         "",
	} {
		if got := settingOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzSettingOf checks that any message is taken.
func FuzzSettingOf(f *testing.F) {
	for _, seed := range []string{"l2_size 1 B: give", "namespace \"a\\\"\": origin.http: url: x", "access: a.b: read: x", "tls.cert: : "} {
		f.Add(seed, "a: {b.c: 1, b: {c: 2}}")
	}
	f.Fuzz(func(t *testing.T, text, file string) {
		path := settingOf(text)
		cfg, err := parsed([]byte(file))
		if line, found := cfg.sources.line(path); line < 0 || !within(path, found) && found != "" {
			t.Errorf("%q: line %d, %q, %v", path, line, found, err)
		}
	})
}

// TestAskOrigins checks that config check asks each origin once, and that no message
// shows a secret.
func TestAskOrigins(t *testing.T) {
	asked := make(chan string, 10)
	stuck, release := context.WithCancel(context.Background())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		switch {
		case strings.HasPrefix(r.URL.Path, "/stuck/"):
			<-stuck.Done()
		case strings.HasPrefix(r.URL.Path, "/refuses/"):
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	defer release()
	dir := tempDir(t)
	file, secret := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("postgres://u:hunter2@127.0.0.1:1/db"), 0o600); err != nil {
		t.Fatal(err)
	}
	ask := func(text string, flags ...string) outcome {
		t.Helper()
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "SERVER", server.URL)), 0o600); err != nil {
			t.Fatal(err)
		}
		return command(t, "", append([]string{"config", "check", "--ask-origins", file}, flags...)...)
	}
	o := ask("namespaces:\n  a: {origin: {http: {url: 'SERVER/good/{key}'}}}\n  n: {key_pattern: '[0-9]+', origin: {http: {url: 'SERVER/number/{key}'}}}\n")
	if o.status != exitDone || !regexp.MustCompile(`^a  http  ok +[0-9.µms]+\nn  http  ok +[0-9.µms]+\nok\n$`).MatchString(o.out) || o.err != "" {
		t.Errorf("%v", o)
	}
	if first, second := <-asked, <-asked; len(asked) != 0 || first+second != "/good/cachesidecar-check/number/0" && second+first != "/good/cachesidecar-check/number/0" {
		t.Errorf("asked for %s, %s, and %d more", first, second, len(asked))
	}
	o = ask("namespaces:\n  a: {key_pattern: 'x[a-f]{9}', origin: {http: {url: 'SERVER/refuses/{key}'}}}\n")
	if o.status != exitDone || !strings.HasPrefix(o.out, "a  http  not asked: its key_pattern") || len(asked) != 0 {
		t.Errorf("%v", o)
	}
	bad := "namespaces:\n  a: {origin: {http: {url: 'SERVER/good/{key}'}}}\n  r: {origin: {http: {url: 'SERVER/refuses/{key}'}}}\n" +
		"  p: {origin: {postgres: {dsn_file: " + secret + ", query: SELECT $1}}}\n"
	o = ask(bad, "--timeout", "1m")
	for _, want := range []string{
		file + ":3: namespace r: origin.http: ", "status 403",
		file + ":4: namespace p: origin.postgres: ", "cachesidecar: 2 problems in the configuration\n",
	} {
		if o.status != exitMiss || !strings.HasPrefix(o.out, "a  http  ok  ") || !strings.Contains(o.err, want) || strings.Contains(o.err, "hunter2") {
			t.Errorf("%v\nwant %q", o, want)
		}
	}
	o = ask("namespaces:\n  s:\n    origin: {http: {url: 'SERVER/stuck/{key}'}}\n    limits: {timeout: 30s}\n", "--timeout", "300ms")
	if o.status != exitMiss || !strings.Contains(o.err, file+":3: namespace s: origin.http: no answer within the timeout") {
		t.Errorf("%v", o)
	}
	o = ask(bad, "--timeout", "1m", "--json")
	if o.status != exitMiss || o.err != "" || strings.Count(o.out, `"problem"`) != 2 || strings.Contains(o.out, "hunter2") {
		t.Errorf("%v", o)
	}
	if o := ask("", "--json"); o != (outcome{exitDone, "[]\n", ""}) {
		t.Errorf("%v", o)
	}
	if o := ask("", "--timeout", "0s"); o.status != exitUsage || !strings.Contains(o.err, `--timeout "0s": give 1ms to 365d`) {
		t.Errorf("%v", o)
	}
}
