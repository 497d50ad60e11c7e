package sidecar

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	_ "net/http/pprof"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/client"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// httpAnswer sends one request verbatim and returns the status and the body.
func httpAnswer(t *testing.T, address, request string) (int, string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	testenv.Must(t, err)
	defer c.Close()
	_ = c.SetDeadline(testenv.Deadline())
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	testenv.Must(t, err)
	return resp.StatusCode, string(body)
}

// TestHTTPRules checks that HTTP answers to this host's names and to IP addresses only,
// to GET and HEAD only, and shows metrics and profiles only to clients with the token.
func TestHTTPRules(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	testenv.Must(t, os.WriteFile(file, []byte("0123456789sesame\n"), 0o600))
	s := start(t, Config{Node: "Node-1", HTTP: "127.0.0.1:0", HTTPHosts: []string{"Cache.internal"}, HTTPTokenFile: file, Pprof: true, Profiles: http.DefaultServeMux})
	address := s.http.Load().Addr().String()
	own, err := os.Hostname()
	testenv.Must(t, err)
	for host, want := range map[string]int{
		"127.0.0.1": 200, "10.1.2.3:80": 200, "[::1]:7948": 200, "[::1]": 200, "localhost": 200, "LOCALHOST.:7948": 200, own: 200,
		"node-1:7948": 200, "cache.internal": 200, "CACHE.INTERNAL.": 200, "": 200,
		"evil.example": 421, "evil.example:7948": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421, "x.cache.internal": 421, "0x7f.1": 421,
	} {
		code, body := httpAnswer(t, address, "GET /livez HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if code != want || code == 421 && (!strings.Contains(body, "http_hosts") || strings.Contains(body, "evil")) {
			t.Errorf("host %q: %d %s", host, code, body)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "X"} {
		for _, path := range []string{"/livez", "/metrics", "/debug/pprof/symbol"} {
			if code, _ := httpAnswer(t, address, method+" "+path+" HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer 0123456789sesame\r\nConnection: close\r\n\r\n"); code != 405 && code != 400 {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	for path, open := range map[string]bool{"/livez": true, "/readyz": true, "/metrics": false, "/debug/pprof/": false, "/debug/pprof/cmdline": false, "/debug/pprof/heap": false} {
		for header, right := range map[string]bool{
			"": false, "Authorization: Bearer 0123456789sesame\r\n": true, "Authorization: bearer  0123456789sesame\r\n": true, "Authorization: Bearer 0123456789sesam\r\n": false,
			"Authorization: Bearer 0123456789sesame2\r\n": false, "Authorization: Basic 0123456789sesame\r\n": false, "Authorization: Bearer\r\n": false,
		} {
			want := http.StatusUnauthorized
			if open || right {
				want = http.StatusOK
			}
			if code, _ := httpAnswer(t, address, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"+header+"\r\n"); code != want {
				t.Errorf("%s with %q: %d, want %d", path, header, code, want)
			}
		}
	}
	for request, want := range map[string]int{
		"GET /livez HTTP/1.1\r\nContent-Length: 0\r\n":           200,
		"GET /livez HTTP/1.1\r\nContent-Length: 5\r\n":           413,
		"GET /livez HTTP/1.1\r\nContent-Length: 5000000\r\n":     413,
		"GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n":  413,
		"POST /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n": 405,
	} {
		if code, _ := httpAnswer(t, address, request+"Host: localhost\r\n\r\n"); code != want { // its body does not come
			t.Errorf("%q: %d, want %d", request, code, want)
		}
	}
	if code, _ := httpAnswer(t, address, "GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "+strings.Repeat("x", 20<<10)+"\r\n\r\n"); code != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 20 KiB: %d", code)
	}
}

// TestPprofWithoutProfiles checks that profiles that cannot be served are refused.
func TestPprofWithoutProfiles(t *testing.T) {
	err := Config{HTTP: "127.0.0.1:0", Pprof: true}.Check()
	if err == nil || !strings.Contains(err.Error(), "net/http/pprof") {
		t.Errorf("got %v, want an error that says what to import", err)
	}
}

// TestHTTPWarned checks that the log of Run warns of an address that everybody may reach.
func TestHTTPWarned(t *testing.T) {
	for address, warns := range map[string]bool{":0": true, "127.0.0.1:0": false} {
		var log testenv.Text
		start(t, Config{HTTP: address, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if strings.Contains(log.String(), "http listens on all addresses") != warns {
			t.Errorf("http %s is to warn: %v; the log: %s", address, warns, log.String())
		}
	}
}

// TestHTTPGate checks that connections of one user make room for new ones, whether they have sent a request,
// a part of one or nothing, and that a probe always gets in.
func TestHTTPGate(t *testing.T) {
	s := start(t, Config{HTTP: "127.0.0.1:0"})
	g := s.http.Load()
	address := g.Addr().String()
	for _, request := range []string{
		"", "GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n", "GET /livez HT",
		"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
	} {
		for i := range 2 * maxHTTP {
			c, err := net.Dial("tcp", address)
			testenv.Must(t, err)
			defer c.Close()
			_, _ = io.WriteString(c, request)
			if n := g.Stats().Open; n > maxHTTP {
				t.Fatalf("%d connections are open", n)
			}
			if i%2 == 1 {
				if code, _ := httpAnswer(t, address, "GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); code != 200 {
					t.Errorf("a probe amid them: %d", code)
				}
			}
		}
	}
	if n := g.Stats().Closed; n < maxHTTP {
		t.Errorf("%d were closed", n)
	}
}

// TestHTTPSettings checks which settings of HTTP are refused.
func TestHTTPSettings(t *testing.T) {
	for _, tc := range []struct {
		cfg  Config
		want string
	}{
		{Config{HTTPHosts: []string{"http://x"}}, "http_hosts"},
		{Config{HTTPHosts: []string{"x:80"}}, "http_hosts"},
		{Config{HTTPHosts: []string{""}}, "http_hosts"},
		{Config{HTTP: "127.0.0.1:0", HTTPTokenFile: "sesame"}, "http_token_file"},
		{Config{HTTP: "127.0.0.1:0", HTTPTokenFile: "/nonexistent"}, "http_token_file"},
		{Config{HTTP: "127.0.0.1:0", HTTPTokenFile: tokenFile(t, "short", "123456789abcdef").File}, "short: a token is one line of 16 to 256 bytes: make one with"},
		{Config{HTTP: "127.0.0.1:0", HTTPTokenFile: tokenFile(t, "lines", "123456789abcdef\nx").File}, "lines: a token is one line of"},
	} {
		if err := tc.cfg.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc.cfg.HTTPHosts, err)
		}
	}
}

// TestFileShares checks that the shares of the descriptors fit into the limit, that the
// apps have at least half if descriptors are scarce, and that the log names the remedy.
func TestFileShares(t *testing.T) {
	pg := Namespace{Origin: &postgres.Config{}}
	mc := Namespace{Origin: &memcached.Config{Servers: []string{"a:1", "b:1"}, Connections: 10}}
	all := Config{
		MaxConnections: 16_384, HTTP: "x", Bind: "x", SharedSize: Off,
		Namespaces: map[string]Namespace{"pg": pg, "mc": mc, "none": {}},
	}
	shared := all
	shared.SharedSize = 1 << 20
	for _, tc := range []struct {
		cfg               Config
		limit             uint64
		apps, http, peers int
		rest              int
	}{
		{all, 1 << 20, 16_384, 128, 4096, 64 + 16 + 20},
		{all, 16_384 + 128 + 4096 + 100, 16_384, 128, 4096, 100},
		{all, 16_384, 16_384 - 128 - 2048 - 100, 128, 2048, 100},
		{all, 1024, 1024 - 64 - 128 - 100, 64, 128, 100},
		{shared, 1 << 20, 16_384, 128, 4096, 100},
		{shared, 16_384 + 128 + 4096 + 100 + session.MaxDescriptors, 16_384, 128, 4096, 100},
		{shared, 1024, 1024 - 64 - 128 - 64 - 100, 64, 128, 100},
		{all, 256, 256 - 16 - 32 - 64, 16, 32, 64},
		{Config{MaxConnections: 100, SharedSize: Off}, 164, 100, 0, 0, 64},
		{Config{MaxConnections: 100, SharedSize: Off}, 163, 100, 0, 0, 40},
		{Config{MaxConnections: 100, SharedSize: Off}, 120, 90, 0, 0, 30},
		{all, 20, 16_384, 128, 4096, 100},
	} {
		f := shareFiles(&tc.cfg, tc.limit)
		if n := newBudget(&tc.cfg, &f).Total(quota.Connections); n != int64(tc.apps) {
			t.Errorf("limit %d: %d places of connections", tc.limit, n)
		}
		if f.apps != tc.apps || f.http != tc.http || f.peers != tc.peers || f.rest != tc.rest {
			t.Errorf("limit %d: %+v", tc.limit, f)
		}
		if sum := f.apps + f.http + f.peers + f.passed + f.rest; tc.limit >= fewestFiles && uint64(sum) > tc.limit {
			t.Errorf("limit %d: the shares make %d", tc.limit, sum)
		}
		var log strings.Builder
		f.warn(slog.New(slog.NewTextHandler(&log, nil)))
		if warns := log.Len() > 0; warns != (f.apps < tc.cfg.MaxConnections) {
			t.Errorf("limit %d: %q", tc.limit, log.String())
		} else if warns {
			for _, want := range []string{"LimitNOFILE", fmt.Sprint("max_connections=", tc.cfg.MaxConnections), fmt.Sprint("limit=", tc.limit), fmt.Sprint("connections=", f.apps)} {
				if !strings.Contains(log.String(), want) {
					t.Errorf("%q lacks %s", log.String(), want)
				}
			}
		}
	}
}

// TestMetricsPage checks the form of some lines of /metrics.
func TestMetricsPage(t *testing.T) {
	s := start(t, Config{HTTP: "127.0.0.1:0"})
	c, err := client.Dial(t.Context(), client.Config{Socket: s.SocketPath(), NoSharedMemory: true})
	testenv.Must(t, err)
	defer c.Close()
	if _, err := c.Set(t.Context(), "a", b("1"), cachesidecar.SetOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(t.Context(), "a", cachesidecar.GetOptions{}); err != nil {
		t.Fatal(err)
	}
	_, page := httpAnswer(t, s.http.Load().Addr().String(), "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	for _, line := range []string{
		`cachesidecar_requests_total{namespace="default",op="GET",result="hit",tier="l2"} 1`,
		`cachesidecar_requests_total{namespace="default",op="SET",result="ok",tier=""} 1`,
		`cachesidecar_memory_limit_bytes{tier="l2"} 8.388608e+06`,
		`cachesidecar_entries{tier="l2"} 1`,
		`cachesidecar_connections 1`,
		`cachesidecar_build_info{`,
		`go_goroutines`,
	} {
		if !strings.Contains(page, line) {
			t.Errorf("/metrics has no %s", line)
		}
	}
}
