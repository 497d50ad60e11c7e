package hosts

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/telemetry"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
)

// TestVirtualOtherSettings checks that hosts name the settings in which they differ, and nothing else, once
// in the log, and that a reload which makes them agree ends it.
func TestVirtualOtherSettings(t *testing.T) {
	t.Parallel()
	bubble.Test(t, func(t *testing.T) {
		w := newWorld(t, firstSeed(), 3)
		logs := make([]testenv.Text, 3)
		from := func(path, host string) Namespace { // it is not asked: no read comes
			return Namespace{Origin: &httporigin.Config{URL: "http://" + host + path + "{key}"}, Limits: Limits{Concurrency: len(host)}}
		}
		set := func(c *Config, i int, differ bool) {
			c.MaxConnections, c.Log = 100+i, slog.New(slog.NewTextHandler(&logs[i], nil))
			c.Namespaces = map[string]Namespace{
				"users": from("/", strings.Repeat("x", i+1)),
				"pages": {Quota: Size(1+i) << 20},
			}
			if i == 2 && differ {
				c.Namespaces["users"] = from("/users/", "xxx")
				c.Namespaces["pages"] = Namespace{DefaultTTL: ptr(time.Minute)}
				c.Namespaces["own"] = Namespace{StaleLimit: ptr(time.Hour)}
				c.Namespaces["same"] = Namespace{DefaultTTL: ptr(DefaultTTL)} // as it is without settings
			}
		}
		for i, v := range w.nodes {
			v.edit = func(c *Config) { set(c, i, true) }
			v.start()
		}
		w.agreed(15 * time.Second)
		time.Sleep(time.Minute)
		want := []string{"namespaces.own.stale_limit", "namespaces.pages.default_ttl", "namespaces.users.origin.http.url"}
		differs := func(v *vnode) (list []string) {
			for _, s := range v.s.engine.Node.Agreement.Differing() {
				list = append(list, s.Node+" "+s.Name())
			}
			return list
		}
		of := func(nodes ...string) (list []string) {
			for _, n := range nodes {
				for _, s := range want {
					list = append(list, n+" "+s)
				}
			}
			return list
		}
		for i, expect := range [][]string{of("n2"), of("n2"), of("n0", "n1")} {
			v := w.nodes[i]
			if got := differs(v); !slices.Equal(got, expect) {
				t.Errorf("%s: %q, want %q", v.name, got, expect)
			}
			st := v.s.telemetry.Stats()
			if line := telemetry.ConditionLine(&st); st.NotReady != "" || !strings.Contains(line, "has other settings, and may answer differently: namespaces.own.stale_limit") {
				t.Errorf("%s: %s", v.name, line)
			}
			for _, m := range v.s.engine.Admin.Members() {
				if (len(m.Differs) > 0) != slices.ContainsFunc(expect, func(s string) bool { return strings.HasPrefix(s, m.Node+" ") }) {
					t.Errorf("%s lists %+v", v.name, m)
				}
			}
		}
		asked := func() (n int64) {
			for _, v := range w.nodes {
				n += v.s.engine.Node.Agreement.Asked.Load()
			}
			return n
		}
		before := asked()
		time.Sleep(10 * time.Minute) // ten times as long as the longest pause, that of lines in the log
		if n := asked() - before; n != 0 {
			t.Errorf("asked %d more times in ten minutes", n)
		}
		const other, again = "a host has other settings", "a host has the same settings again"
		if n := strings.Count(logs[0].String(), other); n != 1 {
			t.Errorf("%d lines of the log in ten minutes, want one", n)
		}
		cfg := w.nodes[2].config()
		set(&cfg, 2, false)
		if _, err := w.nodes[2].s.Apply(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Minute)
		for i, v := range w.nodes {
			if got := differs(v); len(got) != 0 || strings.Count(logs[i].String(), again) != strings.Count(logs[i].String(), other) {
				t.Errorf("%s, once they agree: %q", v.name, got)
			}
		}
		for _, v := range w.nodes {
			v.leave()
		}
		time.Sleep(30 * time.Second)
	})
}
