package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// feedFile returns a configuration with a feed of a table, from a server of PostgreSQL.
func feedFile(t *testing.T, dsn, more string) string {
	t.Helper()
	dir := tempDir(t)
	secret, file := filepath.Join(dir, "dsn"), filepath.Join(dir, "c.yaml")
	text := fmt.Sprintf(`http: off
namespaces:
  users:
    audit: 100%%
    origin:
      postgres: {dsn_file: %[1]s, query: 'SELECT name FROM users WHERE id = $1'}
changes:
  shop:
    postgres:
      dsn_file: %[1]s
      tables:
        public.users: {namespace: users, key: "{id}"}
%[2]s    max_lag: 8s
`, secret, more)
	testenv.Must(t, errors.Join(os.WriteFile(secret, []byte(dsn), 0o600), os.WriteFile(file, []byte(text), 0o600)))
	return file
}

// TestChanges walks the way of docs/CHANGES.md: what `changes sql` prints makes the database ready,
// `config check` says so, and a row that changes ends its cached value.
func TestChanges(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	pg := origintest.NewPostgres(t)
	pg.Start(t, "wal_level=logical")
	pg.Exec(t, "CREATE TABLE users (id int PRIMARY KEY, name text)")
	pg.Exec(t, "INSERT INTO users VALUES (1, 'ann')")
	file := feedFile(t, pg.DSN(), "      messages: [usres]\n")
	check := func() outcome { return command(t, "", "config", "check", "--ask-origins", file) }
	if o := check(); o.status != exitMiss || !strings.Contains(o.err, file+":9: changes.shop.postgres: ") || !strings.Contains(o.err, "there is no publication cachesidecar") {
		t.Errorf("before the publication is there: %v", o)
	}
	for sql := range strings.SplitSeq(mustRun(t, "changes", "sql", file), ";\n") {
		if strings.Contains(sql, "CREATE") && !strings.Contains(sql, "ROLE") {
			pg.Exec(t, sql)
		}
	}
	const dropped = "SELECT pg_drop_replication_slot('left_behind')"
	pg.Exec(t, "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
	o := check()
	for _, want := range []string{"max_slot_wal_keep_size is -1", dropped, "namespace usres is not configured"} {
		if o.status != exitDone || !strings.HasSuffix(o.out, "changes shop  postgres  ok\nok\n") || !strings.Contains(o.err, want) {
			t.Errorf("%v\nwant %q", o, want)
		}
	}
	// A query that takes the key for a text may find a row by any spelling, without a key_pattern.
	text, err := os.ReadFile(file)
	testenv.Must(t, err)
	loose := filepath.Join(tempDir(t), "c.yaml")
	for pattern, want := range map[string]string{
		"": `lets such a key pass: "00". Give it a key_pattern`, ".*": `lets such a key pass: "00"`, "[1-9][0-9]*": "",
	} {
		c := strings.Replace(string(text), "id = $1", "id = $1::text::int", 1)
		if pattern != "" {
			c = strings.Replace(c, "    audit:", "    key_pattern: '"+pattern+"'\n    audit:", 1)
		}
		testenv.Must(t, os.WriteFile(loose, []byte(c), 0o600))
		o := command(t, "", "config", "check", "--ask-origins", loose)
		if (o.status == exitDone) != (want == "") || !strings.Contains(o.err, want) {
			t.Errorf("key_pattern %q: %v, want %q", pattern, o, want)
		}
	}

	p := runSidecar(t, "--config", file)
	p.waitFor("a slot that is left behind", p.log, func(log string) bool { return strings.Contains(log, dropped) })
	follows := regexp.MustCompile(`(?m)^shop  following +\S+ +\d+ +\d+ +\d+ +\d+ +1 +\d+ `)
	testenv.Succeeds(t, "the feed to follow", func() error {
		if o := p.at("changes"); !follows.MatchString(o.out) || !strings.Contains(o.out, "shop began anew: there was no slot\n") {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
	testenv.Succeeds(t, "a certificate", func() error {
		if o := p.at("changes"); !regexp.MustCompile(`(?m)^shop is certified up to \S+ ago; max_lag is 8\S* ?s$`).MatchString(o.out) {
			return fmt.Errorf("%v", o)
		}
		return nil
	})
	if o := p.at("health"); o.status != exitDone || strings.Contains(o.out+o.err, "max_lag") {
		t.Errorf("health: %v", o)
	}
	if got := p.must("get", "--ns", "users", "1"); got != "ann" {
		t.Fatalf("it is %q", got)
	}
	if o := p.at("get", "--ns", "users", "01"); o.status == exitDone || !strings.Contains(o.err, "a feed of changes") {
		t.Errorf("another spelling of the key: %v", o)
	}
	pg.Exec(t, "UPDATE users SET name = 'bob'")
	testenv.Succeeds(t, "the old value to end", func() error {
		if got := p.must("get", "--ns", "users", "1"); got != "bob" {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
	if out := p.must("stats"); !regexp.MustCompile(`changes +feed shop: following, \S+ behind, certified \S+ ago, \d+ rows, \d+ keys deleted, 2 flushes`).MatchString(out) {
		t.Errorf("stats does not tell of the feed:\n%s", out)
	}
}

// TestChangesErrors checks the errors of the command and of the settings.
func TestChangesErrors(t *testing.T) {
	serveHere(t)
	if o := command(t, "", "changes"); o.status != exitDone || !strings.HasPrefix(o.out, "no feed is configured") {
		t.Errorf("without a feed: %v", o)
	}
	dir := tempDir(t)
	file := filepath.Join(dir, "c.yaml")
	secret := filepath.Join(dir, "dsn")
	testenv.Must(t, os.WriteFile(secret, []byte("postgres://u:hunter2@127.0.0.1:1/db"), 0o600))
	for text, want := range map[string]string{
		"changes: {shop: {}}":           "changes.shop: nothing is given: give postgres",
		"changes: {shop: {mysql: {}}}":  `"mysql" is no setting of a feed of changes`,
		"changes: {shop: {postgres: }}": "changes.shop: nothing is given: give postgres",
		"changes: {shop: {postgres: {tables: {public.u: {namespace: u, key: '{id}'}}}}}":                                         "there is no DSN: give dsn_file",
		"changes: {shop: {postgres: {dsn_file: " + secret + "}}}":                                                                "tables: 0 are given: give 1 to 256",
		"changes: {shop: {postgres: {dsn_file: " + secret + ", tables: {u: {namespace: u, key: '{id}'}}}}}":                      "tables.u: give schema and name, such as public.users",
		"changes: {shop: {postgres: {dsn_file: " + secret + ", tables: {public.u: {namespace: u, key: id}}}}}":                   `tables.public.u.key "id": give columns in braces, such as {id}`,
		"changes: {shop: {postgres: {dsn_file: " + secret + ", tables: {public.u: {namespace: 'a b', key: '{id}'}}}}}":           `namespace "a b": give the name of a namespace`,
		"changes: {shop: {postgres: {dsn_file: " + secret + ", slot: A-b, tables: {public.u: {namespace: u, key: '{id}'}}}}}":    `slot "A-b": give 1 to 63 of a to z, 0 to 9 and _`,
		"changes: {shop: {postgres: {dsn_file: " + secret + ", messages: [''], tables: {public.u: {namespace: u, key: '{}'}}}}}": `messages: "" is no name of a namespace`,
		"changes: {shop: {max_lag: 1s, postgres: {dsn_file: " + secret + ", tables: {public.u: {namespace: u, key: '{id}'}}}}}":  "changes.shop.max_lag 1s: give at least 8s, four times max_staleness, and at most 1h; or 0 for no bound",
		"changes: {shop: {max_lag: 2h, postgres: {dsn_file: " + secret + ", tables: {public.u: {namespace: u, key: '{id}'}}}}}":  "changes.shop.max_lag 2h0m0s: give at least 8s",
		"changes: {b: &f {postgres: {dsn_file: " + secret + ", tables: {public.u: {namespace: u, key: '{id}'}}}}, a: *f}":        `changes.b: slot "cachesidecar" of the server 127.0.0.1:1 is that of changes.a already`,
		"changes: {shop: {postgres: 'postgres://u:hunter2@h/d'}}":                                                                "give settings, such as dsn_file",
	} {
		testenv.Must(t, os.WriteFile(file, []byte(text+"\n"), 0o600))
		o := command(t, "", "config", "check", file)
		if o.status != exitMiss || !strings.Contains(o.err, want) || strings.Contains(o.err, "hunter2") {
			t.Errorf("%s: %v\nwant %q", text, o, want)
		}
	}
	testenv.Must(t, os.WriteFile(file, []byte("node: a\n"), 0o600))
	command(t, "", "changes", "sql", file).fails(t, "changes sql", exitMiss, "the file has no feed: give changes")
}
