package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// TestPostgres checks a key filter of a real table, and write-throughs to that table. One
// of them is committed, but its answer is lost.
func TestPostgres(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 4*time.Second)
	p := origintest.NewPostgres(t)
	p.Start(t)
	p.Exec(t, "CREATE TABLE pages (id text PRIMARY KEY, body bytea NOT NULL CHECK (length(body) < 100))")
	p.Exec(t, "INSERT INTO pages SELECT 'page' || i, 'body' FROM generate_series(1, 1000) i")
	proxy := origintest.NewProxy(t, "unix", p.Socket())
	host, port, _ := net.SplitHostPort(proxy.Address)
	s := start(t, Config{NoSocket: true, Namespaces: map[string]Namespace{"pages": {
		Origin: &postgres.Config{
			DSNFile: testenv.File(t, fmt.Sprintf("host=%s port=%s user=tester dbname=postgres sslmode=disable", host, port)),
			Query:   "SELECT body FROM pages WHERE id = $1",
			Write: postgres.WriteConfig{
				Store:  "INSERT INTO pages VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body",
				Delete: "DELETE FROM pages WHERE id = $1",
			},
		},
		ExistingKeys: &ExistingKeys{Keys: 2000, MaxAge: time.Minute, List: loader.List{Query: "SELECT id FROM pages"}},
		WriteThrough: true, Limits: Limits{Timeout: 30 * time.Second},
	}}})
	ns := s.engine.Namespaces.Lookup([]byte("pages"))
	testenv.Eventually(t, "a filter", func() bool { return ns.KeyFilter.Stats().InUse })
	ctx := context.Background()
	is := func(what, key, want string) {
		t.Helper()
		v, err := s.Get(ctx, "pages", key, cachesidecar.GetOptions{})
		if want == "" && errors.Is(err, cachesidecar.ErrNotFound) {
			return
		}
		if err != nil || string(v.Value) != want {
			t.Errorf("%s: %q, %v; want %q", what, v.Value, err, want)
		}
	}
	set := func(key, value string) error {
		_, err := s.Set(ctx, "pages", key, []byte(value), cachesidecar.SetOptions{})
		return err
	}
	row := func(key string) string {
		v, err := ns.Origin.Guard.Load(ctx, []byte(key))
		if err != nil {
			return err.Error()
		}
		return string(v.Bytes)
	}
	for i := range 500 {
		is("there", fmt.Sprint("page", i+1), "body")
		is("made up", fmt.Sprint("none", i+1), "")
	}
	if k := ns.KeyFilter.Stats(); k.Keys != 1000 || k.Denied < 480 {
		t.Errorf("%+v", k)
	}
	for _, value := range []string{"one", "two"} {
		if err := set("new", value); err != nil || row("new") != value {
			t.Errorf("SET: %v, and the row is %q", err, row("new"))
		}
		is("set", "new", value)
	}
	if err := set("new", strings.Repeat("x", 100)); !errors.Is(err, cachesidecar.ErrOrigin) {
		t.Errorf("against a constraint: %v, want ORIGIN", err)
	}
	is("refused", "new", "two")

	if err := set("new", "two"); err != nil { // the pool asks a connection that was idle for a second whether it lives
		t.Fatal(err)
	}
	proxy.Lose(true)
	if err := set("new", "three"); !errors.Is(err, cachesidecar.ErrTimeout) {
		t.Errorf("with its answer lost: %v, want TIMEOUT", err)
	}
	proxy.Lose(false)
	is("committed, and its answer lost", "new", "three")
	if _, err := s.DeleteMulti(ctx, "pages", []string{"new", "page1"}, cachesidecar.DeleteOptions{}); err != nil || !strings.Contains(row("new"), "no such key") {
		t.Errorf("DELETE: %v, and the row is %q", err, row("new"))
	}
	is("deleted", "new", "")
	is("deleted", "page1", "")
}
