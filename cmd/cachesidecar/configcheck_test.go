package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/configfile"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestGoldenConfigCheck checks that everything that is wrong with a file is reported at
// once, each with its line, and that run says the same with flags and variables.
func TestGoldenConfigCheck(t *testing.T) {
	dir := tempDir(t)
	file := filepath.Join(dir, "c.yaml")
	bad, err := os.ReadFile("testdata/config_bad.yaml")
	testenv.Must(t, err)
	testenv.Must(t, os.WriteFile(file, bad, 0o600))
	check := func(name, out string) {
		t.Helper()
		goldenText(t, name, strings.ReplaceAll(out, file, "FILE"))
	}
	o := command(t, "", "config", "check", file)
	if o.status != exitMiss || o.out != "" {
		t.Errorf("%v", o)
	}
	check("config_check.txt", o.err)
	if n := strings.Count(o.err, "\n"+file) + 1; !strings.HasSuffix(o.err, "\ncachesidecar: "+make(configfile.Problems, n).Counted()+"\n") {
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
	testenv.Must(t, os.WriteFile(secret, []byte("postgres://u:hunter2@127.0.0.1:1/db"), 0o600))
	ask := func(text string, flags ...string) outcome {
		t.Helper()
		testenv.Must(t, os.WriteFile(file, []byte(strings.ReplaceAll(text, "SERVER", server.URL)), 0o600))
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
		file + ":3: namespaces.r.origin.http: ", "status 403",
		file + ":4: namespaces.p.origin.postgres: ", "cachesidecar: 2 problems in the configuration\n",
	} {
		if o.status != exitMiss || !strings.HasPrefix(o.out, "a  http  ok  ") || !strings.Contains(o.err, want) || strings.Contains(o.err, "hunter2") {
			t.Errorf("%v\nwant %q", o, want)
		}
	}
	o = ask("namespaces:\n  s:\n    origin: {http: {url: 'SERVER/stuck/{key}'}}\n    limits: {timeout: 30s}\n", "--timeout", "300ms")
	if o.status != exitMiss || !strings.Contains(o.err, file+":3: namespaces.s.origin.http: no answer within the timeout") {
		t.Errorf("%v", o)
	}
	o = ask(bad, "--timeout", "1m", "--json")
	if o.status != exitMiss || o.err != "" || strings.Count(o.out, `"problem"`) != 2 || strings.Contains(o.out, "hunter2") {
		t.Errorf("%v", o)
	}
	if o := ask("", "--json"); o != (outcome{exitDone, "[]\n", ""}) {
		t.Errorf("%v", o)
	}
	ask("", "--timeout", "0s").fails(t, "ask", exitUsage, `--timeout "0s": give 1ms to 365d`)
}

func TestConfigCheck(t *testing.T) {
	file := filepath.Join(tempDir(t), "c.yaml")
	check := func(text string) outcome {
		testenv.Must(t, os.WriteFile(file, []byte(text), 0o600))
		return command(t, "", "config", "check", file)
	}
	for _, text := range []string{"", "l2_size: 16MiB\n", "http: off", "socket_mode: 0600", "namespaces: {a: {default_ttl: 0s}}",
		"namespaces: {a: {origin: {exec: {command: [true]}}, limits: {rate: 7.5}}}"} {
		if o := check(text); o != (outcome{exitDone, "ok\n", ""}) {
			t.Errorf("%q: %v\nwant ok", text, o)
		}
	}
	for text, want := range map[string]string{
		"l2_size: 1MiB":              file + ":1: l2_size 1.0 MiB: give 8.0 MiB to 256 GiB\ncachesidecar: 1 problem in the configuration\n",
		"a: 1\nb: 2\n":               "\ncachesidecar: 2 problems in the configuration\n",
		"node: \xff":                 "\ncachesidecar: 1 problem in the configuration\n",
		strings.Repeat("#", 1<<20+1): " has more than 1048576 bytes",
	} {
		if o := check(text); o.status != exitMiss || o.out != "" || !strings.Contains(o.err, want) {
			t.Errorf("%.500s\nwant status %d and %q", o, exitMiss, want)
		}
	}
	command(t, "", "config", "check", file+"-absent").fails(t, "absent file", exitMiss, file+"-absent: no such file")
	command(t, "", "config", "check", filepath.Dir(file)).fails(t, "folder", exitMiss, "it is no regular file")
	pipe := file + "-pipe"
	testenv.Must(t, syscall.Mkfifo(pipe, 0o600))
	for _, path := range []string{"/dev/zero", pipe} {
		runBinary(t, "config", "check", path).fails(t, "a file without an end", exitMiss, path+": it is no regular file")
		runBinary(t, "run", "--config", path, "--socket", file+"-s").fails(t, "a file without an end", exitUsage, path+": it is no regular file")
	}
}
