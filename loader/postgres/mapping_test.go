package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestMapping checks which key a row has, by the columns of its table.
func TestMapping(t *testing.T) {
	for _, tc := range []struct{ key, want string }{
		{"{id}", "42"},
		{"user:{id}", "user:42"},
		{"{region}/{id}", "eu/42"},
		{"{id}{region}", "42eu"},
		{"a{region}b{id}c{region}", "aeub42ceu"},
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

// TestWrongMapping checks the messages about tables and keys that are wrong.
func TestWrongMapping(t *testing.T) {
	for _, tc := range []struct{ table, namespace, key, want string }{
		{"users", "users", "{id}", "give schema and name, such as public.users"},
		{".users", "users", "{id}", "give schema and name"},
		{"public.", "users", "{id}", "give schema and name"},
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
	} {
		_, err := newMapping(tc.table, FeedTable{tc.namespace, tc.key})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v", tc, err)
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
		"many tables":    {func(c *FeedConfig) { c.Tables = many }, []string{"tables: 257 are given"}},
		"many messages":  {func(c *FeedConfig) { c.Messages = slices.Repeat(c.Messages, 129) }, []string{"messages: 258 are given"}},
		"wrong messages": {func(c *FeedConfig) { c.Messages = []string{"a b"} }, []string{`messages: "a b" is no name`}},
		"several": {func(c *FeedConfig) { c.Slot = "-"; c.Tables["users"] = FeedTable{"users", "id"} },
			[]string{"slot", "tables: users", "give schema and name", `key "id"`}},
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
