package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/vmihailenco/msgpack/v5"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/bubble"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

func TestMain(m *testing.M) { origintest.Main(m) }

// config returns the configuration of an origin in the test's own PostgreSQL.
func config(p *origintest.Postgres, query string) Config {
	return Config{DSN: p.DSN() + " password=s3cret", Query: query, Connections: 4}
}

// source opens an origin, with write-through if there are statements for it.
func source(t *testing.T, cfg Config, timeout ...time.Duration) *Source {
	t.Helper()
	o := loader.OriginOptions{MaxValue: 1000, Timeout: origintest.Never, WriteThrough: cfg.Write != WriteConfig{}}
	for _, given := range timeout {
		o.Timeout = given
	}
	s, err := New(cfg, o)
	testenv.Must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// underWay waits until the server executes a statement with the given text.
func underWay(t *testing.T, p *origintest.Postgres, text string) {
	t.Helper()
	s := source(t, config(p, "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND strpos(query, $1) > 0 LIMIT 1"))
	testenv.Succeeds(t, text+" to be under way", func() error {
		_, err := s.Load(t.Context(), []byte(text))
		return err
	})
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 3*time.Second)
	p := origintest.SharedPostgres(t)
	p.Exec(t, "CREATE TABLE users (id int PRIMARY KEY, name text, raw bytea, ok bool, big int8, f float8, n numeric)")
	p.Exec(t, `INSERT INTO users VALUES
		(1, 'Ada', '\x00ff', true, 9007199254740993, 0.5, 1.10),
		(2, repeat('x', 1000), NULL, NULL, NULL, 'Infinity', NULL),
		(3, repeat('x', 1001), NULL, NULL, NULL, NULL, NULL),
		(4, repeat('x', 200000), NULL, NULL, NULL, NULL, NULL),
		(5, NULL, NULL, NULL, NULL, NULL, NULL), (6, '', NULL, NULL, NULL, NULL, NULL)`)

	byID := source(t, config(p, "SELECT name FROM users WHERE id = $1"))
	with := func(query string, f Format) *Source {
		cfg := config(p, query)
		cfg.Format = f
		return source(t, cfg)
	}
	hasty := config(p, "SELECT pg_sleep(600)::text WHERE $1::text <> ''")
	missing := config(p, "SELECT $1::text")
	missing.DSN = strings.Replace(p.DSN(), "tester", "nobody-there", 1) + " password=s3cret"
	refusing := config(p, "SELECT $1::text")
	host, port, _ := strings.Cut(testenv.Refusing(t), ":")
	refusing.DSN = fmt.Sprintf("postgres://u:s3cret@%s:%s/d?sslmode=disable", host, port)
	silent := refusing
	host, port, _ = strings.Cut(origintest.Saying(t, ""), ":")
	silent.DSN = fmt.Sprintf("postgres://u:s3cret@%s:%s/d?sslmode=disable", host, port)
	garbage := silent
	host, port, _ = strings.Cut(origintest.Saying(t, "garbage garbage garbage"), ":")
	garbage.DSN = fmt.Sprintf("postgres://u:s3cret@%s:%s/d?sslmode=disable", host, port)
	ok := func(s string) loader.Value { return loader.Value{Bytes: []byte(s), Flags: kv.Text} }
	number := func(s string) loader.Value { return loader.Value{Bytes: []byte(s), Flags: kv.Integer} }
	origintest.Run(t, []origintest.Case{
		{Name: "value", Source: byID, Key: "1", Want: ok("Ada")},
		{Name: "bytes", Source: with("SELECT raw FROM users WHERE id = $1;", ""), Key: "1", Want: loader.Value{Bytes: []byte{0, 255}}},
		{Name: "number", Source: with("SELECT big FROM users WHERE id = $1", ""), Key: "1", Want: number("9007199254740993")},
		{Name: "a key of text", Source: with("SELECT id FROM users WHERE name = $1", ""), Key: "Ada", Want: number("1")},
		{Name: "a key of bytes", Source: with("SELECT id FROM users WHERE raw = $1", ""), Key: "\x00\xff", Want: number("1")},
		{Name: "JSON", Source: with("SELECT id, name, ok, n FROM users WHERE id = $1", JSON), Key: "1", Want: ok(`{"id":1,"name":"Ada","ok":true,"n":1.10}`)},
		{Name: "empty", Source: byID, Key: "6", Want: ok("")},
		{Name: "absent", Source: byID, Key: "77", Err: loader.ErrAbsent},
		{Name: "no injection", Source: with("SELECT id FROM users WHERE name = $1", ""), Key: "x' OR '1'='1", Err: loader.ErrAbsent},
		{Name: "NULL", Source: byID, Key: "5", Err: loader.ErrPermanent},
		{Name: "two rows", Source: with("SELECT id FROM users WHERE id > $1", ""), Key: "1", Err: loader.ErrPermanent},
		{Name: "as long as may be", Source: byID, Key: "2", Want: ok(strings.Repeat("x", 1000))},
		{Name: "too long", Source: byID, Key: "3", Err: loader.ErrTooLarge},
		{Name: "much too long", Source: byID, Key: "4", Err: loader.ErrTooLarge},
		{Name: "and then another", Source: byID, Key: "1", Want: ok("Ada")},
		{Name: "bad key", Source: byID, Key: "Ada", Err: loader.ErrBadKey},
		{Name: "key out of range", Source: byID, Key: "99999999999", Err: loader.ErrBadKey},
		{Name: "key not UTF-8", Source: with("SELECT id FROM users WHERE name = $1", ""), Key: "\xff", Err: loader.ErrBadKey},
		{Name: "key with a zero", Source: with("SELECT id FROM users WHERE name = $1", ""), Key: "a\x00b", Err: loader.ErrBadKey},
		{Name: "no such table", Source: with("SELECT x FROM nothing WHERE id = $1", ""), Key: "1", Err: loader.ErrPermanent},
		{Name: "timeout", Source: source(t, hasty, 300*time.Millisecond), Key: "1", Err: origintest.ErrAny},
		{Name: "no such user", Source: source(t, missing), Key: "1", Err: loader.ErrPermanent, Secret: "s3cret"},
		{Name: "nobody listens", Source: source(t, refusing), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "silence", Source: source(t, silent, 300*time.Millisecond), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "an error", Source: with("SELECT pg_terminate_backend(pg_backend_pid())::text WHERE $1::text <> ''", ""), Key: "1", Err: origintest.ErrAny},
		{Name: "drips", Source: source(t, tcp(origintest.Dripping(t, "R\x00\x00\x10\x00", "x"), "SELECT $1::text"), 300*time.Millisecond), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "states too much", Source: source(t, tcp(origintest.Saying(t, "R\x10\x00\x00\x00"), "SELECT $1::text"), origintest.Never), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "drops the connection", Source: source(t, tcp(origintest.Cutting(t, "R"), "SELECT $1::text"), origintest.Never), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
		{Name: "garbage", Source: source(t, garbage), Key: "1", Err: origintest.ErrAny, Secret: "s3cret"},
	})

	t.Run("msgpack", func(t *testing.T) {
		s := with("SELECT id, name, raw, ok, big, f, n FROM users WHERE id = $1", Msgpack)
		for key, want := range map[string]map[string]any{
			"1": {"id": int8(1), "name": "Ada", "raw": []byte{0, 255}, "ok": true, "big": uint64(9007199254740993), "f": 0.5, "n": "1.10"},
			"2": {"id": int8(2), "name": strings.Repeat("x", 1000), "raw": nil, "ok": nil, "big": nil, "f": math.Inf(1), "n": nil},
		} {
			s.options.MaxValue = 2000
			v, err := s.Load(context.Background(), []byte(key))
			testenv.Must(t, err)
			got, err := msgpack.NewDecoder(bytes.NewReader(v.Bytes)).DecodeMap()
			if err != nil || v.Flags != kv.Msgpack || !reflect.DeepEqual(got, want) {
				t.Errorf("got %#v with flags %d, %v; want %#v", got, v.Flags, err, want)
			}
		}
	})

	t.Run("check", func(t *testing.T) {
		for _, tc := range []struct {
			name, query string
			format      Format
			bad         bool
		}{
			{"good", "SELECT name FROM users WHERE id = $1", Column, false},
			{"two columns", "SELECT name, id FROM users WHERE id = $1", Column, true},
			{"two columns as a row", "SELECT name, id FROM users WHERE id = $1", Msgpack, false},
			{"no columns", "DELETE FROM users WHERE id = $1", Msgpack, true},
			{"no such column", "SELECT nam FROM users WHERE id = $1", Column, true},
			{"a parameter in a text", "SELECT name FROM users WHERE name = '$1'", Column, true},
			{"no SQL", "SELEKT $1", Column, true},
		} {
			err := with(tc.query, tc.format).Check(context.Background())
			if (err != nil) != tc.bad || tc.bad && !errors.Is(err, loader.ErrPermanent) {
				t.Errorf("%s: got %v", tc.name, err)
			}
		}
	})

	t.Run("restarted mid-load", func(t *testing.T) {
		slow := with("SELECT pg_sleep(601)::text WHERE $1::text <> ''", "")
		ended := make(chan error, 1)
		go func() { // ends when the server is killed
			_, err := slow.Load(context.Background(), []byte("1"))
			ended <- err
		}()
		underWay(t, p, "pg_sleep(601)")
		// Immediate shutdown.
		testenv.Must(t, p.Process.Process.Signal(syscall.SIGQUIT))
		if err := <-ended; loader.Answered(err) {
			t.Errorf("the load that was under way: %v", err)
		}
		_ = p.Process.Wait()
		if _, err := byID.Load(context.Background(), []byte("1")); loader.Answered(err) {
			t.Errorf("while it is down: %v", err)
		}
		p.Start(t)
		p.Exec(t, "SELECT 1")
		if v, err := byID.Load(context.Background(), []byte("1")); err != nil || string(v.Bytes) != "Ada" {
			t.Errorf("after the restart: %q, %v", v.Bytes, err)
		}
	})
}

func TestConfig(t *testing.T) {
	const dsn, query = "postgres://u:s3cret@h/d", "SELECT $1"
	for _, cfg := range []Config{
		{DSN: dsn}, {DSN: dsn, Query: "SELECT 1"}, {DSN: dsn, Query: "SELECT $1, $2"}, {DSN: dsn, Query: query, Format: "xml"},
		{DSN: "postgres://u:s3cret@h:port/d", Query: query}, {DSN: "host=h port=s3cret password=s3cret", Query: query},
	} {
		if _, err := New(cfg, loader.OriginOptions{}); err == nil {
			t.Errorf("%+v was taken", cfg)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("the error shows a secret: %v", err)
		}
	}
}

// greets answers the beginning of a session, with a number of its own, and no statement. It ends with the connection.
func greets(c net.Conn, session uint32) {
	b := pgproto3.NewBackend(c, c)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	b.Send(&pgproto3.AuthenticationOk{})
	b.Send(&pgproto3.BackendKeyData{ProcessID: session, SecretKey: []byte("1234")})
	b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if b.Flush() == nil {
		_, _ = io.Copy(io.Discard, c)
	}
	_ = c.Close()
}

// TestElsewhere checks that all connections end once a server says that it only reads, at most once a second, and
// not for another error.
func TestElsewhere(t *testing.T) {
	bubble.Test(t, func(t *testing.T) {
		s := source(t, Config{DSN: "host=127.0.0.1 user=tester dbname=shop sslmode=disable", Query: "SELECT $1"})
		cfg, sessions := s.pool.Config(), uint32(0)
		cfg.ConnConfig.DialFunc = func(context.Context, string, string) (net.Conn, error) {
			client, server := net.Pipe()
			sessions++
			go greets(server, sessions)
			return client, nil
		}
		s.pool.Close()
		var err error
		if s.pool, err = pgxpool.NewWithConfig(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		defer s.pool.Close()
		session := func(want uint32, what string) {
			t.Helper()
			c, err := s.pool.Acquire(t.Context())
			testenv.Must(t, err)
			defer c.Release()
			if got := c.Conn().PgConn().PID(); got != want {
				t.Errorf("%s: session %d, want %d", what, got, want)
			}
		}
		readOnly := fmt.Errorf("a write: %w", &pgconn.PgError{Code: "25006"})
		session(1, "at first")
		s.elsewhere(&pgconn.PgError{Code: "25P02"})
		s.elsewhere(errors.New("a timeout"))
		session(1, "after other errors")
		s.elsewhere(readOnly)
		session(2, "the server only reads")
		s.elsewhere(readOnly)
		time.Sleep(time.Second - 1)
		s.elsewhere(readOnly)
		session(2, "within a second")
		time.Sleep(time.Nanosecond)
		s.elsewhere(readOnly)
		session(3, "a second later")
	})
}
