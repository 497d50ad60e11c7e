package sidecar

import (
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// hostile returns a namespace whose origin lies, with a password if it has one.
func hostile(t *testing.T, kind, mode string) Namespace {
	l := Limits{Timeout: 500 * time.Millisecond}
	l.Breaker.Failures = 1 << 20
	ns := Namespace{Limits: l}
	if kind == "exec" {
		ns.Origin = &execorigin.Config{Command: []string{"/bin/sh", "-c", execLies[mode], "secret-path"}}
		return ns
	}
	address := origintest.Hostile(t, kind, mode)
	switch kind {
	case "http":
		ns.Origin = &httporigin.Config{URL: "http://" + address + "/secret-path/{key}", CacheControl: true}
	case "redis":
		t.Setenv("HOSTILE_SECRET", "secret-word")
		ns.Origin = &redisorigin.Config{Address: address, Username: "tester", PasswordEnv: "HOSTILE_SECRET"}
	case "memcached":
		ns.Origin = &memcached.Config{Servers: []string{address}, KeyPrefix: "p:"}
	case "postgres":
		t.Setenv("HOSTILE_SECRET", "postgres://tester:secret-word@"+address+"/secret-path?sslmode=disable")
		ns.Origin = &postgres.Config{DSNEnv: "HOSTILE_SECRET", Query: "SELECT b FROM t WHERE id = $1"}
	}
	return ns
}

var execLies = map[string]string{
	"huge": "exec cat /dev/zero", "stderr": "exec cat /dev/zero >&2", "silent": "exec sleep 100", "escapes": "printf '\\033[2J at 127.0.0.1 secret-path' >&2; exit 7",
	"detached": "sleep 100 & exec cat /dev/zero",
}

// syncLog is a log that may be read while it is written.
type syncLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *syncLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *syncLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
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
				log := &syncLog{}
				s := start(t, Config{
					L2Size: 32 << 20, MaxValue: 1 << 20, Namespaces: map[string]Namespace{"users": hostile(t, kind, mode)},
					Log: slog.New(slog.NewTextHandler(log, nil)),
				})
				c := dial(t, s)
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				r := c.call(&wire.Request{Op: wire.OpGet, Namespace: b("users"), Key: b("k"), TimeoutMS: 300_000})
				runtime.ReadMemStats(&after)
				if n := after.TotalAlloc - before.TotalAlloc; n > most {
					t.Errorf("took %d MiB", n>>20)
				}
				if r.Status == wire.OK && slices.Contains(fine, kind+"/"+mode) {
					return
				}
				want := fmt.Sprintf(`origin "users" (%s): `, kind)
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
