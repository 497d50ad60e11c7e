package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// configured is a sidecar with a configuration file that a test changes.
type configured struct {
	*process
	path string
}

func runConfigured(t *testing.T, text string) *configured {
	t.Helper()
	c := &configured{path: filepath.Join(tempDir(t), "config.yaml")}
	c.write(t, text)
	c.process = runSidecar(t, "--config", c.path)
	return c
}

// write puts a file in the place of the configuration.
func (c *configured) write(t *testing.T, text string) {
	t.Helper()
	testenv.Must(t, errors.Join(os.WriteFile(c.path+"-", []byte(text), 0o600), os.Rename(c.path+"-", c.path)))
}

// TestReloadCommand: reload and SIGHUP put another file into effect, name the difference,
// and what needs a restart; flags stay above the file.
func TestReloadCommand(t *testing.T) {
	t.Parallel()
	c := runConfigured(t, "namespaces: {pages: {default_ttl: 5m}}\n")
	if o := c.at("reload"); o.status != exitDone || o.out != "Nothing has changed.\n" {
		t.Errorf("the same file: %v", o)
	}
	c.write(t, "node: other\nlog_level: debug\nl1_size: 32MiB\nnamespaces: {pages: {default_ttl: 1m}, users: {}}\n")
	var changes cachesidecar.Changes
	c.document(&changes, "reload")
	want := fmt.Sprint([]cachesidecar.Change{
		{Setting: "namespaces.pages.default_ttl", From: "5m", To: "1m"},
		{Setting: "namespaces.users", From: "none", To: "given"},
		{Setting: "log_level", From: "info", To: "debug"},
	}, []cachesidecar.Change{{Setting: "l1_size", From: "64MiB", To: "32MiB"}}) // --node is given as a flag
	if got := fmt.Sprint(changes.Changed, changes.Restart); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	c.told("setting namespaces.pages.default_ttl has changed", 1)
	c.told("setting l1_size needs a restart", 1)
	c.told(`"level":"DEBUG"`, 1) // of the answer to reload
	c.write(t, "log_level: error\n")
	c.signal(syscall.SIGHUP)
	c.told("setting namespaces.users has changed", 2)
	if o := c.at("reload"); o.status != exitDone {
		t.Error(o)
	}
	if o := c.at("set", "--ns", "pages", "k", "v"); o.status != exitDone { // a name that is not configured any more
		t.Error(o)
	}
}

// TestReloadBroken: a file that is broken in any way changes nothing. The command fails
// and names what is wrong, and so does the log after SIGHUP.
func TestReloadBroken(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	const good = "request_timeout: 3s\nnamespaces: {pages: {default_ttl: 5m}}\n"
	c := runConfigured(t, good)
	dir := tempDir(t)
	open := filepath.Join(dir, "open")
	testenv.Must(t, os.WriteFile(open, []byte("a secret of others"), 0o644))
	c.write(t, "a: mistake")
	c.signal(syscall.SIGHUP)
	c.told(`the configuration is refused: this host continues with the one that it had","error":"`+c.path+`:1: \"a\" is no`, 1)
	many := strings.Builder{}
	for i := range 300 {
		fmt.Fprintf(&many, "  n%d: {}\n", i)
	}
	for _, tc := range []struct{ name, text, want string }{
		{"not YAML", "namespaces: {", "config.yaml:1: "},
		{"an unknown key", "namespaces: {pages: {default_tll: 1m}}", "default_tll"},
		{"a wrong type", "max_connections: many", "max_connections"},
		{"a wrong value", "log_level: loud", `log_level "loud"`},
		{"two mistakes", "request_timeout: 9h\nhttp_hosts: ['a b']\n", "http_hosts"},
		{"a list", "- a\n", "config.yaml:1: "},
		{"a second document", "{}\n---\n{}\n", "second document"},
		{"an origin", "namespaces: {a: {origin: {http: {url: nowhere}}}}", "origin.http"},
		{"two origins", "namespaces: {a: {origin: {http: {url: 'http://h/{key}'}, exec: {command: [x]}}}}", "http and exec"},
		{"too many namespaces", "namespaces:\n" + many.String(), "max_namespaces"},
		{"too large", "# " + strings.Repeat("x", 1<<20), "more than 1048576 bytes"},
		{"no secret", "tokens: {web: {file: " + filepath.Join(dir, "absent") + "}}", filepath.Join(dir, "absent")},
		{"an open secret", "tokens: {web: {file: " + open + "}}", "0644"},
		{"no DSN", "namespaces: {a: {origin: {postgres: {dsn_file: /absent.dsn, query: 'SELECT $1'}}}}", "/absent.dsn"},
		{"no key", "cluster_key_file: /absent.key", "/absent.key"},
		{"a bad key", "cluster_key_file: " + open, open},
		{"no user", "access: {users: {read: ['user:nosuchuser']}}", "nosuchuser"},
		{"memory", "l2_size: 200GiB", "ignore_memory_limit"},
	} {
		c.write(t, tc.text)
		if o := c.at("reload"); o.status != exitMiss || !strings.Contains(o.err, tc.want) || o.out != "" {
			t.Errorf("%s: %v, want %q", tc.name, o, tc.want)
		}
	}
	c.write(t, "request_timeout: 9h\nhttp_hosts: ['a b']\n")
	if o := c.at("reload"); !strings.Contains(o.err, "request_timeout") || !strings.Contains(o.err, "http_hosts") {
		t.Errorf("not all mistakes are told: %v", o)
	}
	testenv.Must(t, os.Remove(c.path))
	c.at("reload").fails(t, "no file", exitMiss, "no such file")
	c.write(t, good)
	if o := c.at("reload"); o.status != exitDone || o.out != "Nothing has changed.\n" {
		t.Errorf("something had changed: %v", o)
	}
}

// TestReloadStorm: SIGHUP a thousand times while the file gives one origin or another, and
// apps load. No request fails, and nothing is left behind.
func TestReloadStorm(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	var urls [2]string
	for i := range urls {
		origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "origin %d has %s", i, r.URL.Path[1:])
		}))
		defer origin.Close()
		urls[i] = origin.URL
	}
	file := func(i, n int) string {
		return fmt.Sprintf("max_connections: %d\nnamespaces: {pages: {default_ttl: %dms, origin: {http: {url: '%s/{key}'}}}, other%d: {}}\n",
			1000+n, 10+n%20, urls[i], n%7)
	}
	c := runConfigured(t, file(0, 0))
	cl, err := client.Dial(t.Context(), client.Config{Socket: c.socket, Namespace: "pages", DialTimeout: testenv.Patience, RequestTimeout: testenv.Patience})
	testenv.Must(t, err)
	defer cl.Close()
	stats := func() cachesidecar.Stats {
		st, err := cl.Stats(t.Context())
		testenv.Must(t, err)
		return st
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var reads [2]atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				key := fmt.Sprintf("key-%d-%d", g, n%50)
				item, err := cl.Get(context.Background(), key, cachesidecar.GetOptions{})
				if err != nil {
					t.Errorf("a read: %v", err)
					return
				}
				for i := range urls {
					if string(item.Value) == fmt.Sprintf("origin %d has %s", i, key) {
						reads[i].Add(1)
					}
				}
			}
		})
	}
	testenv.Eventually(t, "the load", func() bool { return reads[0].Load() > 200 })
	goroutines, files := stats().Process.Goroutines, c.files(t)
	few := func() bool { return reads[0].Load() < 100 || reads[1].Load() < 100 }
	for n := 0; n < 400 || few() && n < 60_000; n++ {
		if n%4 == 0 {
			c.write(t, file(n/4%2, n/4))
		}
		before := reads[0].Load() + reads[1].Load()
		c.signal(syscall.SIGHUP)
		testenv.Eventually(t, "a read", func() bool { return t.Failed() || reads[0].Load()+reads[1].Load() > before })
	}
	cancel()
	wg.Wait()
	if few() {
		t.Errorf("%d reads of the first origin and %d of the second prove nothing", reads[0].Load(), reads[1].Load())
	}
	c.write(t, file(1, 500))
	if o := c.at("reload"); o.status != exitDone {
		t.Fatal(o)
	}
	if item, err := cl.Get(t.Context(), "last", cachesidecar.GetOptions{}); err != nil || string(item.Value) != "origin 1 has last" {
		t.Errorf("after the last reload: %q, %v", item.Value, err)
	}
	testenv.Succeeds(t, "everything to be as before", func() error {
		if g, f := stats().Process.Goroutines, c.files(t); g > goroutines+10 || f > files+10 {
			return fmt.Errorf("%d goroutines, %d before; %d descriptors, %d before", g, goroutines, f, files)
		}
		return nil
	})
	if n := strings.Count(c.log.String(), "the configuration is refused"); n > 0 {
		t.Errorf("%d reloads were refused", n)
	}
}

// files counts the descriptors of a process; zero where that is not known.
func (p *process) files(t *testing.T) int {
	if runtime.GOOS != "linux" {
		return 0
	}
	list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	testenv.Must(t, err)
	return len(list)
}
