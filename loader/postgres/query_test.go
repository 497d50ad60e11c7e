package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// many calls f with 1 to n, eight at a time.
func many(n int, f func(i int)) {
	var wg sync.WaitGroup
	for from := range 8 {
		wg.Go(func() {
			for i := 1 + from; i <= n; i += 8 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// Behind a pooler, a statement that one client has prepared may be on another connection, and
// that connection may have one of another client. Several origins, and others that were started
// before, share the connections.
func TestPooler(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	p := origintest.SharedPostgres(t)
	p.Exec(t, "CREATE TABLE users (id text PRIMARY KEY, body text); CREATE TABLE orders (id text PRIMARY KEY, body text);"+
		"INSERT INTO users SELECT n, 'user ' || n FROM generate_series(1, 500) n;"+
		"INSERT INTO orders SELECT n, 'order ' || n FROM generate_series(1, 500) n")
	cfg := config(p, "")
	cfg.DSN, cfg.Connections = p.Pooler(t), 8
	for range 2 {
		for _, table := range []string{"user", "order"} {
			of := cfg
			of.Query = "SELECT body FROM " + table + "s WHERE id = $1"
			of.Write = WriteConfig{
				Store: "UPDATE " + table + "s SET body = $2 WHERE id = $1", Delete: "DELETE FROM " + table + "s WHERE id = $1",
			}
			s := source(t, of)
			testenv.Must(t, s.Check(t.Context()))
			t.Run(table, func(t *testing.T) {
				t.Parallel()
				many(500, func(i int) {
					key := []byte(fmt.Sprint(i))
					want := table + " " + string(key)
					if v, err := s.Load(context.Background(), key); err != nil || string(v.Bytes) != want {
						t.Errorf("%s: got %q, %v, want %q", key, v.Bytes, err, want)
					}
					if err := s.Store(context.Background(), key, loader.Value{Bytes: []byte(want)}); err != nil {
						t.Errorf("%s: stored: %v", key, err)
					}
				})
				l, err := s.NewLister(loader.List{Query: "SELECT id FROM " + table + "s"})
				testenv.Must(t, err)
				if keys, err := origintest.Keys(l); err != nil || len(keys) != 500 {
					t.Errorf("a list of %d keys, %v", len(keys), err)
				}
			})
		}
	}
}

// TestTableChanges alters a table between two loads: no load fails, and each gives the value as
// the table is.
func TestTableChanges(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	p := origintest.SharedPostgres(t)
	p.Exec(t, "CREATE TABLE people (id text, body text); INSERT INTO people VALUES ('1', 'Ada')")
	with := func(query string, f Format) *Source {
		cfg := config(p, query)
		cfg.Format = f
		cfg.Write = WriteConfig{Store: "UPDATE people SET body = $2 WHERE id = $1", Delete: "DELETE FROM people WHERE id = $1"}
		return source(t, cfg)
	}
	row := with("SELECT * FROM people WHERE id = $1", Msgpack)
	json := with("SELECT * FROM people WHERE id = $1", JSON)
	body := with("SELECT body FROM people WHERE id = $1", Column)
	for _, tc := range []struct{ change, row, json, body string }{
		{"SELECT 1", "\x82\xa2id\xa11\xa4body\xa3Ada", `{"id":"1","body":"Ada"}`, "Ada"},
		{"ALTER TABLE people ADD COLUMN n int DEFAULT 7", "\x83\xa2id\xa11\xa4body\xa3Ada\xa1n\x07", `{"id":"1","body":"Ada","n":7}`, "Ada"},
		{"ALTER TABLE people RENAME COLUMN n TO m", "\x83\xa2id\xa11\xa4body\xa3Ada\xa1m\x07", `{"id":"1","body":"Ada","m":7}`, "Ada"},
		{"ALTER TABLE people DROP COLUMN m", "\x82\xa2id\xa11\xa4body\xa3Ada", `{"id":"1","body":"Ada"}`, "Ada"},
		{`ALTER TABLE people ALTER COLUMN body TYPE bytea USING '\xff01'::bytea`, "\x82\xa2id\xa11\xa4body\xc4\x02\xff\x01", `{"id":"1","body":"\\xff01"}`, "\xff\x01"},
		{"ALTER TABLE people ALTER COLUMN body TYPE int USING 258", "\x82\xa2id\xa11\xa4body\xcd\x01\x02", `{"id":"1","body":258}`, "258"},
		{"ALTER TABLE people ALTER COLUMN id TYPE int USING id::int", "\x82\xa2id\x01\xa4body\xcd\x01\x02", `{"id":1,"body":258}`, "258"},
		{"ALTER TABLE people ALTER COLUMN id TYPE bytea USING '1'::bytea", "\x82\xa2id\xc4\x011\xa4body\xcd\x01\x02", `{"id":"\\x31","body":258}`, "258"},
	} {
		p.Exec(t, tc.change)
		for s, want := range map[*Source]string{row: tc.row, json: tc.json, body: tc.body} {
			many(8, func(int) {
				if v, err := s.Load(context.Background(), []byte("1")); err != nil || string(v.Bytes) != want {
					t.Errorf("%s: got %q, %v, want %q", tc.change, v.Bytes, err, want)
				}
			})
		}
		if err := row.Store(context.Background(), []byte("1"), loader.Value{Bytes: []byte(tc.body)}); err != nil {
			t.Errorf("%s: stored: %v", tc.change, err)
		}
	}
	p.Exec(t, "ALTER TABLE people DROP COLUMN body")
	if v, err := body.Load(t.Context(), []byte("1")); !errors.Is(err, loader.ErrPermanent) {
		t.Errorf("without its column: %q, %v", v.Bytes, err)
	}
	if v, err := row.Load(t.Context(), []byte("1")); err != nil || string(v.Bytes) != "\x81\xa2id\xc4\x011" {
		t.Errorf("without a column: %q, %v", v.Bytes, err)
	}
}

// TestIdleEnds restarts the server while connections are idle: no load and no write fails.
func TestIdleEnds(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 2*time.Second)
	p := origintest.SharedPostgres(t)
	p.Exec(t, "CREATE TABLE users (id int PRIMARY KEY, body text)")
	cfg := config(p, "SELECT $1::text FROM pg_sleep(0.05)") // takes as long as it needs many connections
	cfg.Connections = 8
	cfg.Write = WriteConfig{Store: upsert, Delete: remove}
	s := source(t, cfg)
	load := func(when string) {
		many(8, func(i int) {
			if _, err := s.Load(context.Background(), []byte(fmt.Sprint(i))); err != nil {
				t.Errorf("%s: %v", when, err)
			}
		})
	}
	load("before")
	testenv.Must(t, p.Process.Process.Signal(syscall.SIGQUIT))
	_ = p.Process.Wait()
	p.Start(t)
	p.Exec(t, "SELECT 1")
	if err := s.Store(t.Context(), []byte("1"), loader.Value{}); err != nil {
		t.Errorf("stored: %v", err)
	}
	load("after")
}

// TestDescriptionsEnd checks that a description is not kept for ever: a wider type of the key
// gives an error of the key only. An error that ends the connection says nothing of a table.
func TestDescriptionsEnd(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, time.Second)
	p := origintest.SharedPostgres(t)
	p.Exec(t, "CREATE TABLE users (id int PRIMARY KEY, body text)")
	s := source(t, config(p, "SELECT body FROM users WHERE id = $1"))
	if _, err := s.Load(t.Context(), []byte("1")); !errors.Is(err, loader.ErrAbsent) {
		t.Fatal(err)
	}
	p.Exec(t, "ALTER TABLE users ALTER id TYPE bigint; INSERT INTO users VALUES (3000000000, 'Ada')")
	old := s.load.last.Load()
	s.load.last.Store(&described{old.StatementDescription, old.at.Add(-describedFor)})
	if v, err := s.Load(t.Context(), []byte("3000000000")); err != nil || string(v.Bytes) != "Ada" {
		t.Errorf("%q, %v", v.Bytes, err)
	}
	for severity, want := range map[string]bool{"ERROR": true, "FATAL": false} {
		if got := outdated(&pgconn.PgError{SeverityUnlocalized: severity, Code: "08P01"}); got != want {
			t.Errorf("%s: outdated is %t", severity, got)
		}
	}
}
