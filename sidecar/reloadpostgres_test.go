package sidecar

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// TestReloadPostgres swaps the tables behind a namespace while apps read and write
// through. No call fails. After a reload, loads and writes go to the other table, and no
// connection to the server is left of the origin before.
func TestReloadPostgres(t *testing.T) {
	t.Parallel()
	testenv.Takes(t, 5*time.Second)
	p := origintest.NewPostgres(t)
	p.Start(t)
	const connections = 3
	tables := []string{"odd", "even"}
	for _, table := range tables {
		p.Exec(t, "CREATE TABLE "+table+" (id text PRIMARY KEY, body bytea NOT NULL)")
		p.Exec(t, "INSERT INTO "+table+" SELECT 'page' || i, '"+table+"' FROM generate_series(1, 10000) i")
	}
	dsn := testenv.File(t, p.DSN())
	behind := func(table string) Namespace {
		return Namespace{WriteThrough: true, Limits: Limits{Timeout: 30 * time.Second, QueueTime: 30 * time.Second}, Origin: &postgres.Config{
			DSNFile: dsn, Connections: connections, Query: "SELECT body FROM " + table + " WHERE id = $1",
			Write: postgres.WriteConfig{
				Store:  "INSERT INTO " + table + " VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET body = EXCLUDED.body",
				Delete: "DELETE FROM " + table + " WHERE id = $1",
			},
		}}
	}
	r := newReloaded(t, Config{RequestTimeout: time.Minute, Namespaces: map[string]Namespace{"pages": behind(tables[0])}})
	conn, err := pgx.Connect(t.Context(), p.DSN())
	testenv.Must(t, err)
	defer conn.Close(context.Background())
	ask := func(sql string) (s string) {
		t.Helper()
		if err := conn.QueryRow(t.Context(), sql).Scan(&s); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
		return s
	}

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var calls atomic.Int64
	for g := range 4 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				calls.Add(1)
				if _, err := r.s.Get(t.Context(), "pages", fmt.Sprint("page", 1+(g*2000+n)%9000), cachesidecar.GetOptions{}); err != nil {
					t.Errorf("a load: %v", err)
				}
				key := fmt.Sprint("new", g)
				if _, err := r.s.Set(t.Context(), "pages", key, fmt.Append(nil, n), cachesidecar.SetOptions{}); err != nil {
					t.Errorf("a write: %v", err)
				}
				if it, err := r.s.Get(t.Context(), "pages", key, cachesidecar.GetOptions{}); err != nil || string(it.Value) != fmt.Sprint(n) {
					t.Errorf("a value that was just written: %q, %v; want %d", it.Value, err, n)
				}
			}
		})
	}
	for round := range 20 {
		table := tables[(round+1)%2]
		r.apply(func(c *Config) { c.Namespaces["pages"] = behind(table) })
		if got := r.get("pages", fmt.Sprint("page", 9001+round)); got != table {
			t.Errorf("round %d: a load brings %q, want %q", round, got, table)
		}
		key := fmt.Sprint("key", round)
		if _, err := r.s.Set(t.Context(), "pages", key, []byte("v"), cachesidecar.SetOptions{}); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		if n := ask("SELECT count(*)::text FROM " + table + " WHERE id = '" + key + "'"); n != "1" {
			t.Errorf("round %d: %s has the row %s times", round, table, n)
		}
	}
	stop()
	wg.Wait()
	if calls.Load() < 20 {
		t.Errorf("%d rounds of load", calls.Load())
	}
	count := "SELECT count(*)::text FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
	testenv.Succeeds(t, "the connections of the origins before end", func() error {
		var n int
		if _, err := fmt.Sscan(ask(count), &n); err != nil || n > connections {
			return fmt.Errorf("%d connections to the server, want %d at most, %v", n, connections, err)
		}
		return nil
	})
}
