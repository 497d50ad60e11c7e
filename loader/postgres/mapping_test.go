package postgres

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestMapping checks which key a row has, by the columns of its table.
func TestMapping(t *testing.T) {
	for _, tc := range []struct{ key, want string }{
		{"{id}", "42"},
		{"user:{id}", "user:42"},
		{"{region}/{id}", "eu/42"},
		{"a{region}b, {id}c", "aeub, 42c"},
		{"{na me}", "x"},
	} {
		m, err := newMapping("public.users", FeedTable{"users", tc.key})
		if err != nil {
			t.Errorf("%s: %v", tc.key, err)
			continue
		}
		row := map[string]string{"id": "42", "region": "eu", "na me": "x"}
		names := []string{"na me", "id", "other", "region"}
		places, err := m.places(names)
		var values []string
		for _, i := range places {
			values = append(values, row[names[i]])
		}
		if got := m.key(values); err != nil || got != tc.want || m.namespace != "users" {
			t.Errorf("%s: %q, %v, want %q", tc.key, got, err, tc.want)
		}
		if _, err := m.places([]string{"other"}); !errors.Is(err, loader.ErrFeed) {
			t.Errorf("%s of a table without these columns: %v", tc.key, err)
		}
	}
}

// TestTable checks how names of tables are read, and that they are as written in statements and in the log.
func TestTable(t *testing.T) {
	for text, want := range map[string]table{
		"public.users":         {"public", "users"},
		"My Schema.Users é":    {"My Schema", "Users é"},
		`public.Ta"ble`:        {"public", `Ta"ble`},
		`"a.b".c`:              {"a.b", "c"},
		`a."b.c"`:              {"a", "b.c"},
		`"a"."b"`:              {"a", "b"},
		`"""a"".".".""  ""."`:  {`"a".`, `."  ".`},
		"public.select":        {"public", "select"},
		`"My ""é"".s"."T.""x"`: {`My "é".s`, `T."x`},
	} {
		if got, ok := parseTable(text); !ok || got != want {
			t.Errorf("%s: %q, %v", text, got, ok)
		}
	}
	f, err := NewFeed(FeedConfig{DSN: "host=h", Tables: map[string]FeedTable{`"a.b".c`: {"users", "{id}"}, `a."b.""c"`: {"users", "{id}"}}})
	if err != nil || !strings.Contains(f.SQL(), `FOR TABLE "a.b"."c", "a"."b.""c"`) {
		t.Errorf("%v: %s", err, f.SQL())
	}
}

// TestWrongMapping checks the messages about tables and keys that are wrong.
func TestWrongMapping(t *testing.T) {
	for _, tc := range []struct{ table, namespace, key, want string }{
		{"users", "users", "{id}", "give schema and name, such as public.users"},
		{".users", "users", "{id}", "give schema and name"},
		{"public.", "users", "{id}", "give schema and name"},
		{"a.b.users", "users", "{id}", `a name with a dot goes in double quotes, "a.b".users`},
		{`"a.b"users`, "users", "{id}", "give schema and name"},
		{`"a.b.users`, "users", "{id}", "give schema and name"},
		{`"a"b".users`, "users", "{id}", "give schema and name"},
		{`"".users`, "users", "{id}", "give schema and name"},
		{"public.users", "", "{id}", `namespace "": give the name of a namespace`},
		{"public.users", "us ers", "{id}", `namespace "us ers"`},
		{"public.users", "users", "", `key "": give columns in braces, such as {id}`},
		{"public.users", "users", "id", `key "id": give columns in braces`},
		{"public.users", "users", "{}", `key "{}"`},
		{"public.users", "users", "{id", `key "{id"`},
		{"public.users", "users", "id}", `key "id}"`},
		{"public.users", "users", "{id}}", `key "{id}}"`},
		{"public.users", "users", "{{id}}", `key "{{id}}"`},
		{"public.users", "users", "{id}{}", `key "{id}{}"`},
		{"public.users", "users", "{region}{id}", "nothing tells where region ends and id begins: give a text between them"},
		{"public.users", "users", "{id}0{id2}", "such as {id}:{id2}"},
		{"public.users", "users", "{id}/{region}/{id}", "column id stands there twice"},
	} {
		_, err := newMapping(tc.table, FeedTable{tc.namespace, tc.key})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
		}
	}
}

// TestFeedDSN checks that a feed takes the DSNs that an origin takes, with parameters of pools, which are not the
// server's, and refuses the same.
func TestFeedDSN(t *testing.T) {
	plain := map[string]string{}
	for _, more := range []string{
		"", "pool_max_conns=4 pool_min_conns=1 pool_min_idle_conns=1", "pool_max_conn_lifetime=1h pool_max_conn_idle_time=1m",
		"pool_health_check_period=1m pool_max_conn_lifetime_jitter=1s", "default_query_exec_mode=simple_protocol",
		"statement_cache_capacity=0 description_cache_capacity=1", "target_session_attrs=read-write", "search_path=shop",
		"pool_max_conns=many", "default_query_exec_mode=other", "statement_cache_capacity=x", "target_session_attrs=x",
	} {
		dsn := "host=h " + more
		o, origin := New(Config{DSN: dsn, Query: "SELECT $1"}, loader.OriginOptions{})
		if origin == nil {
			o.Close()
		}
		feed, err := NewFeed(FeedConfig{DSN: dsn, Tables: map[string]FeedTable{"public.users": {"users", "{id}"}}})
		if (err == nil) != (origin == nil) {
			t.Errorf("%q: a feed says %v, an origin %v", more, err, origin)
		}
		if err != nil {
			continue
		}
		c, err := feed.config(false)
		testenv.Must(t, err)
		if more == "" {
			plain = maps.Clone(c.RuntimeParams)
		}
		delete(c.RuntimeParams, "search_path")
		if !maps.Equal(c.RuntimeParams, plain) {
			t.Errorf("%q: the server is told %v", more, c.RuntimeParams)
		}
	}
}

// TestFeedVersion checks which servers are refused.
func TestFeedVersion(t *testing.T) {
	for version, ok := range map[string]bool{"140019": false, "149999": false, "150000": true, "180004": true, "": false} {
		if err := checkVersion(version); (err == nil) != ok || !ok && (!errors.Is(err, loader.ErrFeed) ||
			!strings.Contains(err.Error(), "PostgreSQL 15 or later, since it looks at the schemas of a publication")) {
			t.Errorf("%q: %v", version, err)
		}
	}
}

// TestWrongFeed checks the messages about settings of a feed that are wrong; all come at once.
func TestWrongFeed(t *testing.T) {
	good := func() FeedConfig {
		return FeedConfig{
			DSN: "host=h", Tables: map[string]FeedTable{"public.users": {"users", "{id}"}, "shop.pages": {"pages", "{id}"}},
			Messages: []string{"more", "users"},
		}
	}
	f, err := NewFeed(good())
	if err != nil || !slices.Equal(f.Namespaces(), []string{"more", "pages", "users"}) ||
		f.cfg.Slot != "cachesidecar" || f.cfg.Publication != "cachesidecar" {
		t.Fatalf("%+v, %v", f, err)
	}
	many := map[string]FeedTable{}
	for i := range maxTables + 1 {
		many[fmt.Sprint("public.t", i)] = FeedTable{"users", "{id}"}
	}
	for name, tc := range map[string]struct {
		change func(*FeedConfig)
		want   []string
	}{
		"no DSN":         {func(c *FeedConfig) { c.DSN = "" }, []string{"dsn"}},
		"a wrong DSN":    {func(c *FeedConfig) { c.DSN = "postgres://u:secret@[" }, []string{"its DSN cannot be read"}},
		"a slot":         {func(c *FeedConfig) { c.Slot = "A-b" }, []string{`slot "A-b": give 1 to 63 of a to z, 0 to 9 and _`}},
		"a long slot":    {func(c *FeedConfig) { c.Slot = strings.Repeat("a", 64) }, []string{"give 1 to 63"}},
		"no table":       {func(c *FeedConfig) { c.Tables = nil }, []string{"tables: 0 are given: give 1 to 256"}},
		"a table twice":  {func(c *FeedConfig) { c.Tables[`"public".users`] = FeedTable{"users", "{id}"} }, []string{"give a table once"}},
		"many tables":    {func(c *FeedConfig) { c.Tables = many }, []string{"tables: 257 are given"}},
		"many messages":  {func(c *FeedConfig) { c.Messages = slices.Repeat(c.Messages, 129) }, []string{"messages: 258 are given"}},
		"wrong messages": {func(c *FeedConfig) { c.Messages = []string{"a b"} }, []string{`messages: "a b" is no name`}},
		"several": {func(c *FeedConfig) { c.Slot = "-"; c.Tables["users"] = FeedTable{"users", "id"} },
			[]string{"slot", "tables.users", "give schema and name", `key "id"`}},
	} {
		c := good()
		tc.change(&c)
		_, err := NewFeed(c)
		for _, want := range tc.want {
			if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v, want %q", name, err, want)
			}
		}
	}
}
