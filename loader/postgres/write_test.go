package postgres

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// tcp returns a configuration for a server at another address.
func tcp(address, query string) Config {
	host, port, _ := strings.Cut(address, ":")
	return Config{DSN: fmt.Sprintf("postgres://tester:s3cret@%s:%s/postgres?sslmode=disable", host, port), Query: query}
}

func TestList(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	c := origintest.SharedPostgres(t)
	c.Exec(t, "CREATE TABLE keys (id int, name text, raw bytea)")
	c.Exec(t, `INSERT INTO keys VALUES (1, 'Ada', '\x00ff'), (2, 'Bob', '\x0a'), (3, '', ''), (4, repeat('k', 1024), NULL), (5, repeat('k', 1025), NULL)`)
	of := func(cfg Config, list loader.List, timeout ...time.Duration) *lister {
		l, err := source(t, cfg, timeout...).NewLister(list)
		testenv.Must(t, err)
		return l.(*lister)
	}
	all := func(query string) *lister { return of(config(c, "SELECT $1::text"), loader.List{Query: query}) }
	elsewhere := func(address string) *lister {
		return of(tcp(address, "SELECT $1::text"), loader.List{Query: "SELECT 'x'", Timeout: 300 * time.Millisecond}, 300*time.Millisecond)
	}
	var many []string
	for i := range 5000 {
		many = append(many, fmt.Sprint(10000+i))
	}
	origintest.RunLists(t, []origintest.List{
		{Name: "text", Lister: all("SELECT name FROM keys WHERE id < 3;"), Want: []string{"Ada", "Bob"}},
		{Name: "bytes", Lister: all("SELECT raw FROM keys WHERE id < 3"), Want: []string{"\x00\xff", "\n"}},
		{Name: "numbers", Lister: all("SELECT id FROM keys"), Want: []string{"1", "2", "3", "4", "5"}},
		{Name: "none", Lister: all("SELECT name FROM keys WHERE id > 5")},
		{Name: "many", Lister: all("SELECT generate_series(10000, 14999)"), Want: many},
		{Name: "none that cannot be asked for", Lister: all("SELECT name FROM keys WHERE id > 2"), Want: []string{strings.Repeat("k", 1024)}},
		{Name: "NULL", Lister: all("SELECT raw FROM keys"), Err: loader.ErrPermanent},
		{Name: "much too long", Lister: all("SELECT repeat('k', 1000000)"), Err: origintest.ErrAny},
		{Name: "fails in the middle", Lister: all("SELECT 1/(5000-i) FROM generate_series(1, 10000) i"), Err: loader.ErrPermanent},
		{Name: "timeout", Lister: of(config(c, "SELECT $1::text"), loader.List{Query: "SELECT pg_sleep(600)::text", Timeout: 300 * time.Millisecond}), Err: origintest.ErrAny},
		{Name: "nobody listens", Lister: elsewhere(testenv.Refusing(t)), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "silence", Lister: elsewhere(origintest.Saying(t, "")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "drips", Lister: elsewhere(origintest.Dripping(t, "R\x00\x00\x10\x00", "x")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Lister: elsewhere(origintest.Saying(t, "garbage garbage garbage")), Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "drops the connection", Lister: elsewhere(origintest.Cutting(t, "R")), Err: origintest.ErrAny, Secret: "s3cret"},
	})

	t.Run("check", func(t *testing.T) {
		for query, bad := range map[string]bool{
			"SELECT name FROM keys": false, "SELECT id, name FROM keys": true, "SELECT nam FROM keys": true,
			"DELETE FROM keys": true, "SELECT name FROM keys WHERE id = $2": true,
		} {
			if err := all(query).Check(t.Context()); (err != nil) != bad || bad && !errors.Is(err, loader.ErrPermanent) {
				t.Errorf("%s: got %v", query, err)
			}
		}
	})

	t.Run("beside loads", func(t *testing.T) {
		cfg := config(c, "SELECT name FROM keys WHERE id = $1")
		cfg.Connections = 1
		l := of(cfg, loader.List{Query: "SELECT CASE i WHEN 100000 THEN pg_sleep(600)::text ELSE i::text END FROM generate_series(1, 100000) i"})
		enough, ctx := errors.New("enough"), testenv.Context(t)
		err := l.Keys(ctx, func([]byte) error {
			testenv.Should(t, testenv.ErrorOf(l.source.Load(t.Context(), []byte("1"))))
			return enough
		})
		if !errors.Is(err, enough) || ctx.Err() != nil {
			t.Error(err, ctx.Err())
		}
	})

	t.Run("restarted in the middle", func(t *testing.T) {
		l := all("SELECT generate_series(1, 100000000)")
		n := 0
		err := l.Keys(t.Context(), func([]byte) error {
			if n++; n == 1 {
				return c.Process.Process.Signal(syscall.SIGQUIT)
			}
			return nil
		})
		if loader.Answered(err) {
			t.Errorf("after %d keys: %v", n, err)
		}
		_ = c.Process.Wait()
		c.Start(t)
		c.Exec(t, "SELECT 1")
		if got, err := origintest.Keys(all("SELECT 1")); err != nil || len(got) != 1 {
			t.Errorf("after the restart: %q, %v", got, err)
		}
	})

	s := source(t, config(c, "SELECT $1::text"))
	for _, cfg := range []loader.List{{}, {Query: " ; "}, {Query: "SELECT $1"}, {Query: "SELECT 1", Timeout: -1}} {
		if _, err := s.NewLister(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

const (
	upsert = "INSERT INTO users VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = excluded.body"
	remove = "DELETE FROM users WHERE id = $1"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	c := origintest.SharedPostgres(t)
	c.Exec(t, "CREATE TABLE users (id int PRIMARY KEY, body bytea CHECK (body <> 'bad'))")
	c.Exec(t, "CREATE TABLE once (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, body text)")
	c.Exec(t, `CREATE FUNCTION fail(code text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION USING ERRCODE = code; END $$`)
	byID := source(t, config(c, "SELECT body FROM users WHERE id = $1"))
	with := func(cfg Config, store, remove string, timeout ...time.Duration) *Source {
		cfg.Write = WriteConfig{Store: store, Delete: remove}
		return source(t, cfg, timeout...)
	}
	here := func(store string) loader.Writer { return with(config(c, "SELECT $1::text"), store, remove) }
	users := here(upsert)
	once := here("INSERT INTO once VALUES ($1, $2)")
	failing := here("SELECT fail($1 || $2)")
	readonly := config(c, "SELECT $1::text")
	readonly.DSN += " default_transaction_read_only=on"
	missing := config(c, "SELECT $1::text")
	missing.DSN = strings.Replace(missing.DSN, "tester", "nobody-there", 1)
	elsewhere := func(address string) loader.Writer {
		return with(tcp(address, "SELECT $1::text"), upsert, remove, 300*time.Millisecond)
	}
	proxy := origintest.NewProxy(t, "unix", c.Socket())
	proxied := with(tcp(proxy.Address, "SELECT $1::text"), upsert, remove, origintest.Never)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "store", Writer: users, Key: "1", Value: "1\x00\xff"},
		{Name: "store again", Writer: users, Key: "1", Value: "2\x00\xff"},
		{Name: "empty", Writer: users, Key: "2"},
		{Name: "store and delete", Writer: users, Key: "3", Value: "x"},
		{Name: "delete", Writer: users, Key: "3", Delete: true},
		{Name: "delete what is not there", Writer: users, Key: "3", Delete: true},
		{Name: "by a function", Writer: here("SELECT set_config('my.' || $1::text, $2, false)"), Key: "a", Value: "x"},
		{Name: "constraint", Writer: users, Key: "1", Value: "bad", Err: loader.ErrNotWritten},
		{Name: "once", Writer: once, Key: "1", Value: "x"},
		{Name: "constraint at the commit", Writer: once, Key: "1", Value: "y", Err: loader.ErrNotWritten},
		{Name: "serialization", Writer: failing, Key: "40001", Err: loader.ErrNotWritten},
		{Name: "outcome unknown", Writer: failing, Key: "40003", Err: origintest.ErrUnknown},
		{Name: "connection to another server", Writer: failing, Key: "08006", Err: origintest.ErrUnknown},
		{Name: "ended by the administrator", Writer: here("SELECT pg_terminate_backend(pg_backend_pid())::text || $1 || $2"), Key: "1", Err: origintest.ErrUnknown},
		{Name: "no row touched", Writer: here("UPDATE users SET body = $2 WHERE id = $1"), Key: "77", Value: "x", Err: origintest.ErrUnknown},
		{Name: "bad key", Writer: users, Key: "Ada", Delete: true, Err: loader.ErrBadKey},
		{Name: "key out of range", Writer: users, Key: "99999999999", Delete: true, Err: loader.ErrBadKey},
		{Name: "key or value of no such type", Writer: users, Key: "s3cret", Value: "x", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "value no text", Writer: once, Key: "2", Value: "\xff", Err: loader.ErrNotWritten},
		{Name: "no such table", Writer: here("INSERT INTO nothing VALUES ($1, $2)"), Key: "1", Err: loader.ErrNotWritten},
		{Name: "may only read", Writer: with(readonly, upsert, remove), Key: "1", Value: "x", Err: loader.ErrNotWritten},
		{Name: "no such user", Writer: with(missing, upsert, remove), Key: "1", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "timeout", Writer: with(config(c, "SELECT $1::text"), "INSERT INTO users SELECT $1, $2 FROM pg_sleep(600)", remove, origintest.Hasty), Key: "4", Value: "x", Err: origintest.ErrUnknown, Hangs: true},
		{Name: "nobody listens", Writer: elsewhere(testenv.Refusing(t)), Key: "1", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "silence", Writer: elsewhere(origintest.Saying(t, "")), Key: "1", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "garbage", Writer: elsewhere(origintest.Saying(t, "garbage garbage garbage")), Key: "1", Err: loader.ErrNotWritten, Secret: "s3cret"},
		{Name: "drops the connection", Writer: elsewhere(origintest.Cutting(t, "R")), Key: "1", Err: loader.ErrNotWritten, Secret: "s3cret"},
	})
	// The pool asks a connection that was idle for a second whether it lives.
	origintest.RunWrites(t, []origintest.Write{{Name: "through a proxy", Writer: proxied, Key: "5", Value: "1"}})
	proxy.Lose(true)
	origintest.RunWrites(t, []origintest.Write{
		{Name: "done, and its answer lost", Writer: proxied, Key: "5", Value: "2", Err: origintest.ErrUnknown, Secret: "s3cret"},
	})
	for key, want := range map[string]string{"1": "2\x00\xff", "2": "", "5": "2"} {
		if v, err := byID.Load(t.Context(), []byte(key)); err != nil || string(v.Bytes) != want {
			t.Errorf("%s: got %q, %v, want %q", key, v.Bytes, err, want)
		}
	}
	if v, err := byID.Load(t.Context(), []byte("3")); !errors.Is(err, loader.ErrAbsent) {
		t.Errorf("deleted: %q, %v", v.Bytes, err)
	}

	t.Run("check", func(t *testing.T) {
		for _, tc := range []struct {
			store, remove string
			bad           bool
		}{
			{upsert + ";", remove, false},
			{upsert, "DELETE FROM nothing WHERE id = $1", true},
			{"INSERT INTO nothing VALUES ($1, $2)", remove, true},
			{"INSERT INTO users VALUES ($1, '$2')", remove, true},
			{upsert, "DELETE FROM users WHERE id = $1 OR id = $2", true},
		} {
			if err := with(config(c, "SELECT $1::text"), tc.store, tc.remove).Check(t.Context()); (err != nil) != tc.bad || tc.bad && !errors.Is(err, loader.ErrPermanent) {
				t.Errorf("%s, %s: got %v", tc.store, tc.remove, err)
			}
		}
	})

	t.Run("demoted", func(t *testing.T) {
		w := with(config(c, "SELECT $1::text"), upsert, remove)
		store := func() error { return w.Store(t.Context(), []byte("7"), loader.Value{Bytes: []byte("7")}) }
		// Sessions that begin now are those of a standby.
		c.Exec(t, "ALTER ROLE tester SET default_transaction_read_only = on")
		var standby []*pgxpool.Conn
		for range 4 {
			conn, err := w.pool.Acquire(t.Context())
			testenv.Must(t, err)
			standby = append(standby, conn)
		}
		c.Exec(t, "BEGIN READ WRITE; ALTER ROLE tester RESET default_transaction_read_only; COMMIT")
		for _, conn := range standby {
			conn.Release()
		}
		if err := store(); !errors.Is(err, loader.ErrNotWritten) {
			t.Errorf("the standby: %v", err)
		}
		if err := store(); err != nil {
			t.Errorf("one answer of the standby has not ended all connections to it: %v", err)
		}
		if age := w.pool.Config().MaxConnLifetime + w.pool.Config().MaxConnLifetimeJitter; age != loader.MaxConnAge {
			t.Errorf("a connection is used for %v", age)
		}
	})

	t.Run("restarted in the middle", func(t *testing.T) {
		w := with(config(c, "SELECT $1::text"), "INSERT INTO users SELECT $1, $2 FROM pg_sleep(601)", remove)
		ended := make(chan error, 1)
		// Ends when the server is killed.
		go func() { ended <- w.Store(context.Background(), []byte("6"), loader.Value{}) }()
		underWay(t, c, "pg_sleep(601)")
		testenv.Must(t, c.Process.Process.Signal(syscall.SIGQUIT))
		if err := <-ended; err == nil || errors.Is(err, loader.ErrNotWritten) {
			t.Errorf("the write that was under way: %v", err)
		}
		_ = c.Process.Wait()
		if err := users.Delete(t.Context(), []byte("1")); err == nil {
			t.Error("deleted while the server is down")
		}
		c.Start(t)
		c.Exec(t, "SELECT 1")
		origintest.RunWrites(t, []origintest.Write{{Name: "and then", Writer: users, Key: "1", Value: "3"}})
	})

	for _, cfg := range []WriteConfig{{}, {Store: upsert}, {Delete: remove}, {Store: remove, Delete: remove}, {Store: upsert, Delete: "DELETE FROM users"}} {
		of := config(c, "SELECT $1::text")
		of.Write = cfg
		if _, err := New(of, loader.OriginOptions{WriteThrough: true}); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}
