package hosts

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
)

// checked is an origin whose server says whether the settings fit it.
type checked struct {
	*database
	check func(context.Context) error
}

func (c *checked) Check(ctx context.Context) error { return c.check(ctx) }

// checks returns what STATS says of the checks of a namespace's origin.
func checks(s *Sidecar, namespace string) (f cachesidecar.FailureStats, found bool) {
	for _, ns := range s.engine.Namespaces.Stats() {
		for _, f := range ns.Failures {
			if ns.Name == namespace && f.Calls == "checks" {
				return f, true
			}
		}
	}
	return f, false
}

// TestVirtualRefusedOrigin checks that an origin which refuses is asked again for as long as it does, at
// most 30 s apart, and that the host is ready at once although another one hangs.
func TestVirtualRefusedOrigin(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		var log testenv.Text
		var asked []time.Time
		mended := false
		w := newWorld(t, firstSeed(), 1)
		refusing := func(context.Context) error {
			if asked = append(asked, time.Now()); mended {
				return nil
			}
			return fmt.Errorf("%w: password of tester", loader.ErrRefused)
		}
		hanging := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		o := newDatabase(always(time.Millisecond))
		warm := &Warm{List: loader.List{Lister: listOf{"k"}}}
		o.set("k", []byte("value"))
		v := w.nodes[0]
		v.edit = func(c *Config) {
			c.Bind, c.Join, c.Log = "off", nil, slog.New(slog.NewTextHandler(&log, nil))
			c.Namespaces = map[string]Namespace{
				"users": {Origin: loader.Custom{Source: &checked{o, refusing}}, WarmOnStart: warm},
				"hangs": {Origin: loader.Custom{Source: &checked{o, hanging}}},
			}
		}
		began := time.Now()
		v.start()
		<-v.s.Ready()
		if took := time.Since(began); took > time.Second {
			t.Errorf("ready after %v", took)
		}
		time.Sleep(time.Hour)
		n := len(asked)
		for i, at := range asked[1:] {
			if gap := at.Sub(asked[i]); gap < time.Second || gap > 30*time.Second {
				t.Errorf("asked again after %v", gap)
			}
		}
		if f, _ := checks(v.s, "users"); n < 3600/30 || f.InARow != int64(n) || f.Failing["refused"] != 1 || strings.Contains(f.Error, "tester") {
			t.Errorf("asked %d times: %+v", n, f)
		}
		if f, _ := checks(v.s, "hangs"); f.Failing["timeout"] != 1 {
			t.Errorf("an origin that hangs: %+v", f)
		}
		st := v.s.telemetry.Stats()
		line := telemetry.ConditionLine(&st)
		if !strings.HasPrefix(line, telemetry.NotWell) || !strings.Contains(line, "origin of users (source): checks failed") || v.s.parts.NotReady() != "" {
			t.Errorf("health: %s", line)
		}
		text := log.String()
		if n := strings.Count(text, "password of tester"); n < 30 || n > 61 {
			t.Errorf("%d lines an hour", n)
		}
		if s := v.s.engine.Namespaces.Lookup([]byte("users")).WarmStats(); s.State != "waiting" {
			t.Errorf("warming: %+v", s)
		}
		mended = true
		time.Sleep(31 * time.Second)
		if f, _ := checks(v.s, "users"); f.InARow != 0 || len(f.Failing) != 0 || !strings.Contains(log.String(), "an origin says that the settings fit it") {
			t.Errorf("once it is mended: %+v", f)
		}
		n = len(asked)
		time.Sleep(time.Hour)
		if s := v.s.engine.Namespaces.Lookup([]byte("users")).WarmStats(); s.Loaded != 1 || len(asked) != n {
			t.Errorf("an hour later: asked %d times, %+v", len(asked)-n, s)
		}
		v.leave()
	})
}

// TestVirtualRefusedReload checks that a reload takes an origin that refuses now, that the one which it
// replaces is not asked any more, and that a strict host refuses both.
func TestVirtualRefusedReload(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		var asked [2]int
		refusing := func(i int) Namespace {
			o := newDatabase(always(time.Millisecond))
			o.set(fmt.Sprint("key", i), fmt.Append(nil, "value", i))
			return Namespace{Origin: loader.Custom{Source: &checked{o, func(context.Context) error {
				asked[i]++
				return fmt.Errorf("%w: no such table", loader.ErrPermanent)
			}}}}
		}
		w := newWorld(t, firstSeed(), 1)
		v := w.nodes[0]
		v.edit = func(c *Config) { c.Bind, c.Join, c.Namespaces = "off", nil, map[string]Namespace{"pages": {}} }
		v.start()
		<-v.s.Ready()
		cfg := v.config()
		for i := range 2 {
			cfg.Namespaces = map[string]Namespace{"pages": {}, "users": refusing(i)}
			if _, err := v.s.Apply(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
			if f, _ := checks(v.s, "users"); f.Failing["refused"] != 1 {
				t.Errorf("after reload %d: %+v", i, f)
			}
			if item, err := v.s.Get(t.Context(), "users", fmt.Sprint("key", i), cachesidecar.GetOptions{}); err != nil || string(item.Value) != fmt.Sprint("value", i) {
				t.Errorf("a read after reload %d: %q, %v", i, item.Value, err)
			}
		}
		n := asked[0]
		time.Sleep(time.Hour)
		if asked[0] != n || asked[1] < 100 {
			t.Errorf("in an hour the old origin was asked %d times, the new one %d times", asked[0]-n, asked[1])
		}
		v.leave()

		v.edit = func(c *Config) { c.Bind, c.Join, c.StrictOrigins = "off", nil, true }
		v.start()
		<-v.s.Ready()
		strict := v.config()
		strict.Namespaces = map[string]Namespace{"users": refusing(0)}
		if _, err := v.s.Apply(t.Context(), strict); err == nil || !strings.Contains(err.Error(), "namespace users: the origin refuses: no such table") {
			t.Errorf("a strict host reloads: %v", err)
		}
		v.leave()
	})
}

// TestVirtualWarmAfterReload checks that warming, which waits for an origin that refuses, goes on with the
// one that a reload has put in its place, once that one agrees.
func TestVirtualWarmAfterReload(t *testing.T) {
	t.Parallel()
	for _, replaced := range []bool{true, false} {
		t.Run(fmt.Sprint(replaced), func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				var mended atomic.Bool
				o := newDatabase(always(time.Millisecond))
				o.set("k", []byte("value"))
				users := func(refuses func() bool) Namespace {
					check := func(context.Context) error {
						if refuses() {
							return fmt.Errorf("%w: password", loader.ErrRefused)
						}
						return nil
					}
					return Namespace{
						Origin: loader.Custom{Source: &checked{o, check}}, WarmOnStart: &Warm{List: loader.List{Lister: listOf{"k"}}},
					}
				}
				v := newWorld(t, firstSeed(), 1).nodes[0]
				v.edit = func(c *Config) {
					c.Bind, c.Join = "off", nil
					c.Namespaces = map[string]Namespace{"pages": {}, "users": users(func() bool { return true })}
				}
				v.start()
				<-v.s.Ready()
				warming := v.s.engine.Namespaces.Lookup([]byte("users"))
				is := func(when, state string, loaded int64) {
					t.Helper()
					if s := warming.WarmStats(); s.State != state || s.Loaded != loaded {
						t.Errorf("%s: %+v", when, s)
					}
				}
				time.Sleep(time.Minute)
				is("while it refuses", "waiting", 0)
				cfg := v.config()
				cfg.Namespaces = map[string]Namespace{"pages": {}}
				if replaced {
					cfg.Namespaces["users"] = users(func() bool { return !mended.Load() })
				}
				if _, err := v.s.Apply(t.Context(), cfg); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Minute)
				if !replaced {
					is("without an origin", namespaces.WarmFailed, 0)
				} else {
					is("while the next one refuses", "waiting", 0)
					mended.Store(true)
					time.Sleep(time.Minute)
					is("once the next one agrees", namespaces.WarmDone, 1)
				}
				v.leave()
			})
		})
	}
}

// TestRefusedOrigins checks that servers which refuse keep no host from starting: reads of their
// namespaces fail, other namespaces serve, and each begins to work once its server is mended. A strict
// host does not start.
func TestRefusedOrigins(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	pg := origintest.NewPostgres(t)
	pg.Start(t)
	query := func(dsn, sql string) loader.OriginConfig { return &postgres.Config{DSN: dsn, Query: sql} }
	users := "SELECT body FROM users WHERE id = $1"
	as := strings.Replace(pg.DSN(), "user=tester", "user=app", 1)
	noauth := origintest.Saying(t, strings.Repeat("-NOAUTH Authentication required.\r\n", 3))
	origins := map[string]struct {
		origin loader.OriginConfig
		kind   string
	}{
		"user":     {query(as, "SELECT $1"), "refused"},
		"database": {query(strings.Replace(pg.DSN(), "dbname=postgres", "dbname=shop", 1), "SELECT $1"), "refused"},
		"table":    {query(pg.DSN(), users), "refused"},
		"columns":  {query(pg.DSN(), "SELECT 1, $1"), "refused"},
		"nowhere":  {query("host=127.0.0.1 port=1 user=tester dbname=postgres", "SELECT $1"), "unreachable"},
		"redis":    {&redisorigin.Config{Address: noauth}, "refused"},
		"cache":    {&memcached.Config{Servers: []string{"127.0.0.1:1"}}, "unreachable"},
	}
	cfg := Config{Namespaces: map[string]Namespace{"pages": {}}}
	for name, o := range origins {
		cfg.Namespaces[name] = Namespace{Origin: o.origin, Limits: Limits{Breaker: Breaker{Open: 100 * time.Millisecond}}}
	}
	s := start(t, cfg)
	ctx := t.Context()
	get := func(namespace string) string {
		item, err := s.Get(ctx, namespace, "k", cachesidecar.GetOptions{})
		if err != nil {
			return err.Error()
		}
		return string(item.Value)
	}
	if _, err := s.Set(ctx, "pages", "k", []byte("v"), cachesidecar.SetOptions{}); err != nil || get("pages") != "v" {
		t.Errorf("a namespace without an origin: %v, %s", err, get("pages"))
	}
	for name, o := range origins {
		testenv.Eventually(t, name+": a check", func() bool { f, _ := checks(s, name); return f.Failing[o.kind] == 1 })
		if got := get(name); !strings.Contains(got, "origin ") || strings.Contains(got, "not found") {
			t.Errorf("%s: a read gets %q", name, got)
		}
	}
	if words, ready := s.readiness(); !ready || !strings.HasPrefix(words, telemetry.NotWell) {
		t.Errorf("readyz: %s, %v", words, ready)
	}
	pg.Exec(t, "CREATE ROLE app LOGIN")
	pg.Exec(t, "CREATE DATABASE shop")
	pg.Exec(t, "CREATE TABLE users (id text PRIMARY KEY, body text)")
	pg.Exec(t, "INSERT INTO users VALUES ('k', 'Ada')")
	for name, want := range map[string]string{"user": "k", "database": "k", "table": "Ada"} {
		testenv.Eventually(t, name+": a value once it is mended", func() bool { return get(name) == want })
	}
	cfg.StrictOrigins = true
	strict, err := New(cfg)
	testenv.Must(t, err)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- strict.Run(ctx) }() // ends with ctx
	select {
	case err = <-ended:
	case <-strict.Ready():
		stop()
		err = errors.Join(errors.New("it has started"), <-ended)
	}
	if err == nil || !strings.HasPrefix(err.Error(), "namespace ") {
		t.Errorf("a strict host: %v", err)
	}
}
