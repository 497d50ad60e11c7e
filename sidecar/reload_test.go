package sidecar

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/quota"
	"github.com/cachesidecar/cachesidecar/internal/session"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/unixsock"
)

// reloaded runs a sidecar alone, and applies configurations to it.
type reloaded struct {
	*testing.T
	s   *Sidecar
	cfg Config
}

func newReloaded(t *testing.T, cfg Config) *reloaded {
	t.Helper()
	cfg.Node, cfg.NoSocket, cfg.L2Size = "a", true, 8<<20
	cfg.RequestTimeout = cmp.Or(cfg.RequestTimeout, 50*time.Second) // on a busy machine calls may take long
	s, err := New(cfg)
	testenv.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // ends with the test
	<-s.Ready()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return &reloaded{t, s, cfg}
}

// apply applies the configuration after f has changed it. It returns what has changed, as
// lines.
func (r *reloaded) apply(f func(*Config)) (changed, restart []string) {
	r.Helper()
	next := r.cfg
	next.Namespaces = map[string]Namespace{}
	for name, ns := range r.cfg.Namespaces {
		next.Namespaces[name] = ns
	}
	f(&next)
	c, err := r.s.Apply(context.Background(), next)
	testenv.Must(r, err)
	r.cfg = next
	return lines(c.Changed), lines(c.Restart)
}

func lines(list []cachesidecar.Change) (l []string) {
	for _, c := range list {
		l = append(l, fmt.Sprintf("%s: %s → %s", c.Setting, c.From, c.To))
	}
	return l
}

func (r *reloaded) get(namespace, key string) string {
	r.Helper()
	item, err := r.s.Get(context.Background(), namespace, key, cachesidecar.GetOptions{})
	if err != nil {
		return err.Error()
	}
	return string(item.Value)
}

// source is an origin whose values name it.
type source struct {
	name  string
	loads atomic.Int64
	gate  chan struct{} // nil: loads do not wait
	begun chan string
}

func (s *source) Load(ctx context.Context, key []byte) (loader.Value, error) {
	s.loads.Add(1)
	if s.gate != nil {
		s.begun <- string(key)
		<-s.gate
	}
	return loader.Value{Bytes: []byte(s.name)}, nil
}

func from(s *source) Namespace { return Namespace{Origin: &loader.Custom{Source: s}} }

// TestReloadNamespaces: namespaces come, change and go while the sidecar runs.
func TestReloadNamespaces(t *testing.T) {
	one, two := &source{name: "one"}, &source{name: "two"}
	r := newReloaded(t, Config{})
	changed, restart := r.apply(func(c *Config) { c.Namespaces["pages"] = from(one) })
	if want := []string{"namespaces.pages: none → given"}; !slices.Equal(changed, want) || restart != nil {
		t.Errorf("%q and %q, want %q", changed, restart, want)
	}
	if got := r.get("pages", "k"); got != "one" {
		t.Errorf("after it has come: %q", got)
	}
	ttl := 5 * time.Minute
	changed, _ = r.apply(func(c *Config) {
		ns := from(two)
		ns.DefaultTTL = &ttl
		c.Namespaces["pages"] = ns
	})
	if want := []string{"namespaces.pages.default_ttl: default → 5m", "namespaces.pages.origin: source → another source"}; !slices.Equal(changed, want) {
		t.Errorf("%q, want %q", changed, want)
	}
	if got := r.get("pages", "k"); got != "one" {
		t.Errorf("what is cached: %q", got)
	}
	if got := r.get("pages", "l"); got != "two" {
		t.Errorf("a new load: %q", got)
	}
	loads := r.s.telemetry.Stats().Namespaces
	i := slices.IndexFunc(loads, func(s cachesidecar.NamespaceStats) bool { return s.Name == "pages" })
	if s := loads[i]; s.Loads.Calls != 2 || s.Loads.Loads != 2 || s.Hits != 1 || s.Loaded != 2 {
		t.Errorf("the counts are %+v", s)
	}
	changed, _ = r.apply(func(c *Config) { delete(c.Namespaces, "pages") })
	if want := []string{"namespaces.pages: given → none"}; !slices.Equal(changed, want) {
		t.Errorf("%q, want %q", changed, want)
	}
	if got := r.get("pages", "l"); got != "two" {
		t.Errorf("what is cached of a name that has gone: %q", got)
	}
	if got := r.get("pages", "m"); got != cachesidecar.ErrNotFound.Error() {
		t.Errorf("a miss of a name that has gone: %q", got)
	}
	if changed, restart = r.apply(func(*Config) {}); changed != nil || restart != nil {
		t.Errorf("the same again: %q and %q", changed, restart)
	}
	if one.loads.Load() != 1 || two.loads.Load() != 1 {
		t.Errorf("%d and %d loads", one.loads.Load(), two.loads.Load())
	}
}

// TestReloadRefused: a configuration that is wrong changes nothing, and its error names
// what is wrong.
func TestReloadRefused(t *testing.T) {
	dir := t.TempDir()
	ttl := time.Hour
	r := newReloaded(t, Config{RequestTimeout: 2 * time.Second, Namespaces: map[string]Namespace{"pages": from(&source{name: "one"})}})
	before := r.s.engine.Namespaces.All()["pages"]
	for _, tc := range []struct {
		name, want string
		f          func(*Config)
	}{
		{"a bound", "request_timeout -1ns", func(c *Config) { c.RequestTimeout = -1 }},
		{"an origin", "namespaces.new.origin.http", func(c *Config) {
			c.Namespaces["new"] = Namespace{Origin: &httporigin.Config{URL: "nowhere"}}
		}},
		{"a token's file", filepath.Join(dir, "absent"), func(c *Config) {
			c.Tokens = map[string]Token{"web": {File: filepath.Join(dir, "absent")}}
		}},
		{"a secret of an origin", filepath.Join(dir, "no.secret"), func(c *Config) {
			c.Namespaces["new"] = Namespace{Origin: &httporigin.Config{
				URL: "http://127.0.0.1:1/{key}", HeaderFiles: map[string]string{"Authorization": filepath.Join(dir, "no.secret")},
			}}
		}},
		{"a cluster key's file", filepath.Join(dir, "no.key"), func(c *Config) { c.ClusterKeyFile = filepath.Join(dir, "no.key") }},
		{"too many namespaces", "max_namespaces", func(c *Config) {
			for i := range 300 {
				c.Namespaces[fmt.Sprint("n", i)] = Namespace{}
			}
		}},
	} {
		next := r.cfg
		next.Namespaces = map[string]Namespace{"pages": {DefaultTTL: &ttl}} // another change, which must not be made
		next.RequestTimeout = time.Second
		tc.f(&next)
		changes, err := r.s.Apply(context.Background(), next)
		if err == nil || !strings.Contains(err.Error(), tc.want) || changes.Changed != nil {
			t.Errorf("%s: %v, %v, want %q", tc.name, changes, err, tc.want)
		}
		if r.s.engine.Namespaces.All()["pages"] != before || r.s.engine.Deadlines.Default() != 2*time.Second || r.s.engine.Namespaces.Lookup([]byte("new")) != nil {
			t.Errorf("%s: something has changed", tc.name)
		}
	}
}

// TestReloadUnderWay: a load at the old origin goes on for its readers. No later reader
// joins it, and what it brings is not kept.
func TestReloadUnderWay(t *testing.T) {
	old := &source{name: "old", gate: make(chan struct{}), begun: make(chan string, 8)}
	next := &source{name: "new"}
	r := newReloaded(t, Config{RequestTimeout: 20 * time.Second, Namespaces: map[string]Namespace{"pages": from(old)}})
	var got [2]string
	var wg sync.WaitGroup
	wg.Go(func() { got[0] = r.get("pages", "k") })
	<-old.begun
	was := r.s.engine.Namespaces.All()["pages"]
	r.apply(func(c *Config) { c.Namespaces["pages"] = from(next) })
	got[1] = r.get("pages", "k") // does not join the load at the old origin
	close(old.gate)
	wg.Wait()
	if got[0] != "old" || got[1] != "new" {
		t.Errorf("%q", got)
	}
	if now := r.get("pages", "k"); now != "new" {
		t.Errorf("what the old origin had is kept: %q", now)
	}
	st := was.Now().LoadStats()
	if st.Loads != 2 || st.Calls != 2 || st.UnderWay != 0 {
		t.Errorf("%+v", st)
	}
}

// TestReloadEverySetting: every setting of Config and of Namespace is either put into
// effect or named as one that needs a restart, never both, and never neither.
func TestReloadEverySetting(t *testing.T) {
	hide := func(text string) string { return text }
	for _, root := range []struct {
		path string
		of   func(*Config) reflect.Value
	}{
		{"", func(c *Config) reflect.Value { return reflect.ValueOf(c).Elem() }},
		{"namespaces.n.", func(c *Config) reflect.Value {
			at := reflect.New(reflect.TypeFor[Namespace]()).Elem()
			at.Set(reflect.ValueOf(c.Namespaces["n"]))
			return at
		}},
	} {
		var c Config
		typ := root.of(&c).Type()
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			if name == "-" {
				name = f.Tag.Get("setting")
			}
			if name == "" {
				continue
			}
			a, b := Config{Namespaces: map[string]Namespace{"n": {}}}, Config{Namespaces: map[string]Namespace{"n": {}}}
			at := root.of(&b)
			otherValue(t, at.Field(i))
			if root.path != "" {
				b.Namespaces["n"] = at.Interface().(Namespace)
			}
			live, restart := differences{hide: hide}.between(&a, &b), differences{hide: hide, restart: true}.between(&a, &b)
			if (len(live) == 0) == (len(restart) == 0) {
				t.Errorf("%s%s: put into effect: %v, after a restart: %v: want one of them", root.path, name, live, restart)
			}
			for _, c := range append(live, restart...) {
				if !strings.HasPrefix(c.Setting, root.path+name) {
					t.Errorf("%s%s is named %s", root.path, name, c.Setting)
				}
			}
		}
	}
}

// otherValue gives a setting a value that differs from its zero.
func otherValue(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString("x")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint32:
		v.SetUint(7)
	case reflect.Float64:
		v.SetFloat(0.25)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		m.SetMapIndex(reflect.ValueOf("x"), reflect.New(v.Type().Elem()).Elem())
		v.Set(m)
	case reflect.Interface:
		v.Set(reflect.ValueOf(&httporigin.Config{}))
	case reflect.Struct:
		for i := range v.NumField() {
			otherValue(t, v.Field(i))
		}
	default:
		t.Fatalf("no value of kind %s", v.Kind())
	}
}

// TestReloadEffects: each setting with the tag reload has its effect at once. A setting
// without a line here is a failure.
func TestReloadEffects(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "token")
	testenv.Must(t, os.WriteFile(secret, []byte(webSecret), 0o600))
	stranger := func(r *reloaded) *session.Handler {
		return r.s.sessions.Of(r.s.engine.Access.Caller(unixsock.Peer{UID: 99, GID: 99}), nil)
	}
	may := func(c *session.Handler, op wire.Op, namespace string) bool {
		return c.Refusal(&wire.Request{Op: op, Namespace: []byte(namespace), App: true}) == nil
	}
	page := func(r *reloaded, host, path string) int {
		q, err := http.NewRequest(http.MethodGet, "http://"+r.s.http.Load().Addr().String()+path, nil)
		testenv.Must(t, err)
		q.Host = host
		a, err := http.DefaultClient.Do(q)
		testenv.Must(t, err)
		a.Body.Close()
		return a.StatusCode
	}
	for setting, e := range map[string]struct {
		change func(*Config)
		is     func(*reloaded) bool // true after the change, false before
	}{
		"admin_group": {func(c *Config) { c.AdminGroup = "99" },
			func(r *reloaded) bool { return may(stranger(r), wire.OpForget, "default") }},
		"access": {func(c *Config) { c.Access = map[string]Grants{Others: {Read: []string{"anyone"}}} },
			func(r *reloaded) bool { return !may(stranger(r), wire.OpSet, "default") }},
		"tokens": {func(c *Config) { c.Tokens = map[string]Token{"web": {File: secret}} },
			func(r *reloaded) bool { c := stranger(r); return c.By.Show(webSecret) == nil }},
		"max_connections": {func(c *Config) { c.MaxConnections = 7 },
			func(r *reloaded) bool {
				return r.s.server.Limits().MaxConns == 7 && r.s.engine.Budget.Total(quota.Connections) == 7
			}},
		"request_timeout": {func(c *Config) { c.RequestTimeout = time.Minute },
			func(r *reloaded) bool { return r.s.engine.Deadlines.Timeout(&wire.Request{}) == time.Minute }},
		"alone_ok": {func(c *Config) { c.AloneOK = true },
			func(r *reloaded) bool { return r.s.telemetry.ClusterState().AloneOK }},
		"leave_time": {func(c *Config) { c.LeaveTime = time.Minute },
			func(r *reloaded) bool { return r.s.engine.Node.LeaveTime() == time.Minute }},
		"weight": {func(c *Config) { c.Weight = 77 }, func(r *reloaded) bool { return r.s.weight.Load() == 77 }},
		"http_hosts": {func(c *Config) { c.HTTPHosts = []string{"cache.test"} },
			func(r *reloaded) bool { return page(r, "cache.test", "/livez") == http.StatusOK }},
		"http_token_file": {func(c *Config) { c.HTTPTokenFile = secret },
			func(r *reloaded) bool { return page(r, "localhost", "/metrics") == http.StatusUnauthorized }},
		"ignore_memory_limit": {func(c *Config) { c.IgnoreMemoryLimit = true },
			func(r *reloaded) bool { return r.s.present.IgnoreMemoryLimit }},
		"namespaces": {func(c *Config) { c.Namespaces["n"] = Namespace{Quota: 1 << 20} },
			func(r *reloaded) bool { return r.s.engine.Namespaces.Lookup([]byte("n")) != nil }},
	} {
		t.Run(setting, func(t *testing.T) {
			r := newReloaded(t, Config{HTTP: "127.0.0.1:0"})
			if e.is(r) {
				t.Error("the effect is there before the change")
			}
			changed, restart := r.apply(e.change)
			if len(changed) == 0 || !strings.HasPrefix(changed[0], setting) || restart != nil {
				t.Errorf("%q and %q are named", changed, restart)
			}
			if !e.is(r) {
				t.Error("the change has no effect")
			}
		})
		delete(liveSettings, setting)
	}
	for setting := range liveSettings {
		t.Errorf("%s has the tag reload, and no test here", setting)
	}
}

// liveSettings are the settings of Config with the tag reload.
var liveSettings = func() map[string]bool {
	list := map[string]bool{}
	typ := reflect.TypeFor[Config]()
	for i := range typ.NumField() {
		if f := typ.Field(i); f.Tag.Get("reload") == "yes" {
			list[cmp.Or(f.Tag.Get("setting"), f.Tag.Get("yaml"))] = true
		}
	}
	return list
}()

// TestReloadNeedsRestart: what needs a restart is named, has no effect, and is named again
// by the next reload.
func TestReloadNeedsRestart(t *testing.T) {
	r := newReloaded(t, Config{Namespaces: map[string]Namespace{"n": {}}})
	for range 2 {
		changed, restart := r.apply(func(c *Config) {
			c.L2Size, c.MaxStaleness = 16<<20, 3*time.Second
			c.Namespaces["n"] = Namespace{MaxStaleness: time.Second}
			c.Namespaces["new"] = Namespace{MaxStaleness: time.Second}
		})
		want := []string{
			"l2_size: 8MiB → 16MiB", "max_value: 512KiB → 1MiB", "namespaces.n.max_staleness: 0s → 1s",
			"namespaces.new.max_staleness: 0s → 1s", "max_staleness: 2s → 3s",
		}
		if slices.Sort(want); !slices.Equal(slices.Sorted(slices.Values(restart)), want) {
			t.Errorf("%q, want %q, beside %q", restart, want, changed)
		}
	}
	if r.s.present.L2Size != 8<<20 || r.s.present.MaxStaleness != 2*time.Second || r.s.weight.Load() != 8 {
		t.Errorf("in effect: %v, %v, %d", r.s.present.L2Size, r.s.present.MaxStaleness, r.s.weight.Load())
	}
	// A smaller bound holds at once, and a larger one not before the restart.
	bound := func() time.Duration { return r.s.engine.Namespaces.Bound(r.s.engine.Namespaces.Lookup([]byte("n")).ID) }
	if got := bound(); got != time.Second || r.s.engine.Namespaces.Least() != time.Second {
		t.Errorf("a smaller bound: %v, the least %v", got, r.s.engine.Namespaces.Least())
	}
	r.apply(func(c *Config) { c.Namespaces = nil })
	if got := bound(); got != 2*time.Second {
		t.Errorf("back to the bound of the start: %v", got)
	}
}
