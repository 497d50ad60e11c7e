package engine_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/testing/onehost"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// hostile returns an origin that lies, with a password if it has one.
func hostile(t *testing.T, kind, mode string) loader.OriginConfig {
	if kind == "exec" {
		return &execorigin.Config{Command: []string{"/bin/sh", "-c", execLies[mode], "secret-path"}}
	}
	address := origintest.Hostile(t, kind, mode)
	switch kind {
	case "http":
		return &httporigin.Config{URL: "http://" + address + "/secret-path/{key}", CacheControl: true}
	case "redis":
		t.Setenv("HOSTILE_SECRET", "secret-word")
		return &redisorigin.Config{Address: address, Username: "tester", PasswordEnv: "HOSTILE_SECRET"}
	case "memcached":
		return &memcached.Config{Servers: []string{address}, KeyPrefix: "p:"}
	case "postgres":
		t.Setenv("HOSTILE_SECRET", "postgres://tester:secret-word@"+address+"/secret-path?sslmode=disable")
		return &postgres.Config{DSNEnv: "HOSTILE_SECRET", Query: "SELECT b FROM t WHERE id = $1"}
	}
	t.Fatal(kind)
	return nil
}

var execLies = map[string]string{
	"huge": "exec cat /dev/zero", "stderr": "exec cat /dev/zero >&2", "silent": "exec sleep 100", "escapes": "printf '\\033[2J at 127.0.0.1 secret-path' >&2; exit 7",
	"detached": "sleep 100 & exec cat /dev/zero",
}

// TestLengthyHostileOrigins checks that, whatever an origin says, a load ends in about its time
// and in bounded memory. The error names the origin and its kind. It tells neither the
// origin's address, nor the user name, nor what the origin has said. The log has the
// details.
func TestLengthyHostileOrigins(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	modes := map[string][]string{"exec": {"huge", "stderr", "silent", "escapes", "detached"}}
	for _, kind := range []string{"http", "redis", "memcached", "postgres"} {
		modes[kind] = origintest.Modes(kind)
	}
	// Bytes that one load may allocate, garbage included. The value is limited to 1 MiB.
	const most = 48 << 20
	fine := []string{"http/trailers"} // the value has come, and the rest is dropped
	for kind, list := range modes {
		for _, mode := range list {
			t.Run(kind+"/"+mode, func(t *testing.T) {
				var log strings.Builder
				h := onehost.New(t, onehost.Config{
					L2Size: 32 << 20, MaxValue: 1 << 20, Log: slog.New(slog.NewTextHandler(&log, nil)),
					Namespaces: onehost.One(func(s *namespaces.Settings) {
						s.Origin = hostile(t, kind, mode)
						s.Guard = loader.GuardConfig{Timeout: 500 * time.Millisecond, Breaker: loader.Breaker{Failures: 1 << 20}}
					}),
				})
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				r := h.Get("k", 0)
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > most {
					t.Errorf("took %d MiB", n>>20)
				}
				if r.Status == wire.OK && slices.Contains(fine, kind+"/"+mode) {
					return
				}
				want := fmt.Sprintf(`origin "default" (%s): `, kind)
				if r.Status != wire.Origin && r.Status != wire.Timeout && r.Status != wire.TooLarge || !strings.Contains(string(r.Message), want) {
					t.Errorf("%v %s lacks %s", r.Status, r.Message, want)
				}
				for _, bad := range []string{"127.0.0.1", "secret", "tester", "\x1b", "x1b", "\u202e", "xxx", "other"} {
					if strings.Contains(string(r.Message), bad) {
						t.Errorf("the app is told %q: %s", bad, r.Message)
					}
				}
				if text := log.String(); !strings.Contains(text, "a load failed") || strings.Contains(text, "secret-word") {
					t.Errorf("the log says %s", text)
				}
			})
		}
	}
}
