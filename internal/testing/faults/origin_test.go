package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/origintest"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// rowKeys is small, so that each row changes while it is being loaded.
const rowKeys = 40

// table is rows in a real PostgreSQL that sidecars load from.
type table struct {
	*origintest.Postgres
	db *pgxpool.Pool
}

// newTable starts PostgreSQL with further settings.
func newTable(t *testing.T, settings ...string) (tb *table, server *exec.Cmd) {
	t.Helper()
	tb = &table{Postgres: origintest.NewPostgres(t)}
	server = tb.Start(t, settings...)
	var err error
	if tb.db, err = pgxpool.New(t.Context(), tb.DSN()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tb.db.Close)
	return tb, server
}

// fill creates the table again, with a row for each key.
func (tb *table) fill(t testing.TB) {
	t.Helper()
	var sql strings.Builder
	sql.WriteString("DROP TABLE IF EXISTS rows; CREATE TABLE rows (key text PRIMARY KEY, body text)")
	for key := range rowKeys {
		fmt.Fprintf(&sql, "; INSERT INTO rows VALUES ('%s', '%s')", keyName(key), value(key, 1))
	}
	tb.Exec(t, sql.String())
}

// namespaces makes loads slow: the query reads the row at its beginning and returns it
// some milliseconds later, when the row may have changed.
const namespaces = `
default:
  stale_limit: 5s
  audit: 100%%
  origin:
    postgres:
      dsn_file: %[1]s
      query: SELECT body FROM rows, LATERAL (SELECT pg_sleep(random() * 0.008)) AS late WHERE key = $1
      connections: 8
  limits:
    timeout: %[2]s
    queue_time: %[2]s
    breaker: {failures: 5, open: 500ms}
`

// briefly is the time of a load where the origin does not always answer.
const briefly = 500 * time.Millisecond

// rows starts three sidecars in front of the table. Apps read through all of them as fast
// as they can, while other apps change rows. A load may take the time loads; if that is
// longer than apps wait otherwise, those that read wait as long.
func (tb *table) rows(g *group, softly bool, loads time.Duration) *load {
	g.t.Helper()
	tb.fill(g.t)
	l := tb.read(g, softly, loads)
	for w := range writers {
		l.wg.Go(func() { l.change(tb, w, 0, softly) })
	}
	return l
}

// read starts three sidecars in front of the table, and the apps that read.
func (tb *table) read(g *group, softly bool, loads time.Duration) *load {
	g.t.Helper()
	file := filepath.Join(g.dir, "dsn")
	testenv.Must(g.t, os.WriteFile(file, []byte(tb.DSN()), 0o600))
	for _, n := range g.nodes {
		n.spec.Namespaces = fmt.Sprintf(namespaces, file, loads)
	}
	g.start(g.nodes)
	// A busy machine may take longer than a load's time to open all connections at once.
	testenv.Succeeds(g.t, "loads by all connections", func() error {
		var reads errgroup.Group
		for key := range rowKeys {
			reads.Go(func() error {
				_, err := g.nodes[0].app.Get(g.t.Context(), keyName(key), cachesidecar.GetOptions{Fresh: true})
				return err
			})
		}
		return reads.Wait()
	})
	l := g.newLoad(map[string]int{"l1": 1000, "l2": 1000, "peer": 1000, "set": 500})
	l.allowed = max(l.allowed, loads)
	for key := range rowKeys {
		// Table.fill wrote it before the first read.
		l.record(op{kind: set, key: key, seq: 1, out: done})
	}
	for _, n := range g.nodes {
		for range 4 {
			l.wg.Go(func() { l.readRows(n, softly) })
		}
	}
	return l
}

// readRows is an app that reads at full rate. Some of its reads accept stale values.
func (l *load) readRows(n *node, stale bool) {
	for {
		select {
		case <-l.stop:
			return
		default:
		}
		if !n.up.Load() {
			time.Sleep(pace)
			continue
		}
		l.get(n, rand.IntN(rowKeys), cachesidecar.GetOptions{StaleOK: stale && rand.IntN(2) == 0})
	}
}

// rows is an origin in which a test changes values.
type rows interface {
	// put commits a new value of a key.
	put(key, seq int) error
}

// put commits a new row.
func (tb *table) put(key, seq int) error {
	ctx, cancel := context.WithTimeout(context.Background(), appTimeout)
	defer cancel()
	_, err := tb.db.Exec(ctx, "UPDATE rows SET body = $2 WHERE key = $1", keyName(key), string(value(key, seq)))
	return err
}

// change is an app that commits a new value of a key, from the first on, and then deletes
// the key through any sidecar. The acknowledgement of the deletion ends the old value.
func (l *load) change(at rows, w, first int, softly bool) {
	last := map[int]int{}
	for l.sleep() {
		key := first + rand.IntN(rowKeys/writers)*writers + w
		last[key]++
		seq := last[key] + 1
		start := l.now()
		o, n := op{}, (*node)(nil)
		announce := func() error {
			if n = l.g.any(); n == nil {
				return errors.New("no sidecar lives")
			}
			o = l.begin(set, key, n)
			o.seq, o.start, o.allowed = seq, start, testenv.Patience
			err := n.client(key).Delete(context.Background(), keyName(key), cachesidecar.DeleteOptions{Soft: softly && seq%2 == 0})
			if errors.Is(err, cachesidecar.ErrNotFound) {
				err = nil // it is deleted
			}
			l.finish(&o, n, err)
			return err
		}
		if !l.insist(func() error { return at.put(key, seq) }) || !l.insist(announce) {
			l.record(op{kind: set, key: key, seq: seq, start: start, end: l.now(), allowed: testenv.Patience, out: unknown})
			return
		}
		l.record(o)
	}
}

// insist calls f until it succeeds. It returns false if the apps were told to end.
func (l *load) insist(f func() error) bool {
	for f() != nil {
		if !l.sleep() {
			return false
		}
	}
	return true
}

// loads sums up the living nodes' statistics of loads.
func (g *group) loads() (sum cachesidecar.LoadStats) {
	g.t.Helper()
	for _, n := range g.living() {
		st, err := n.app.Stats(testenv.Context(g.t))
		testenv.Must(g.t, err)
		for _, ns := range st.Namespaces {
			sum.Loads += ns.Loads.Loads
			sum.Collapsed += ns.Loads.Collapsed
			sum.Detached += ns.Loads.Detached
			sum.Failed += ns.Loads.Failed
			sum.Shed += ns.Loads.Shed
			sum.Calls += ns.Loads.Calls
		}
	}
	return sum
}

// found fails the test if a read did not find its row: each key from the first on has one.
func (l *load) found(first int) {
	l.g.t.Helper()
	for i := range l.history {
		if o := &l.history[i]; o.kind == get && o.key >= first && o.out == absent {
			l.g.t.Fatalf("a row was not found: %v", o)
		}
	}
}

// TestLengthyProcessRows changes rows of a real PostgreSQL and deletes their keys, while apps
// read them at full rate. A value that was loaded before a deletion is not read after it.
func TestLengthyProcessRows(t *testing.T) {
	testenv.Takes(t, 7*time.Second)
	tb, _ := newTable(t)
	rounds := 1
	if *long {
		rounds = 12
	}
	for round := range rounds {
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			g := newGroup(t, fast, 3)
			loads := testenv.Patience / 2 // to open a connection takes PostgreSQL long on a busy machine
			if *long {
				loads = briefly // as there are faults
			}
			l := tb.rows(g, false, loads)
			var sum cachesidecar.LoadStats
			testenv.Succeeds(t, "loads that meet a deletion, and another reader", func() error {
				if sum = g.loads(); sum.Detached < 20 || sum.Collapsed < 20 {
					return fmt.Errorf("too few to prove anything: %+v", sum)
				}
				return nil
			})
			if *long {
				begun, n := time.Now(), g.nodes[round%3]
				n.crash()
				time.Sleep(time.Second)
				n.start()
				g.settle(n.spec.Node+" was killed and is back", begun)
				time.Sleep(2 * time.Second)
				l.outages = []stall{{0, never}} // on a busy machine a load may take longer than its time
			}
			l.check(nil)
			if !*long {
				l.fewFailed(0)
			}
			l.found(0)
			if round == 0 {
				tb.auditFinds(g)
			}
			t.Logf("%d loads, which %d reads joined; %d were outdated before they ended", sum.Loads, sum.Collapsed, sum.Detached)
		})
	}
}

// auditFinds changes a row without an announcement, and checks that each host finds the difference
// in what it has cached, and shows it.
func (tb *table) auditFinds(g *group) {
	g.t.Helper()
	ctx := g.t.Context()
	for _, n := range g.nodes {
		_, _ = n.app.Get(ctx, keyName(0), cachesidecar.GetOptions{})
	}
	tb.Exec(g.t, fmt.Sprintf("UPDATE rows SET body = 'changed' WHERE key = '%s'", keyName(0)))
	for _, n := range g.nodes {
		testenv.Succeeds(g.t, "the audit of "+n.spec.Node, func() error {
			if it, err := n.app.Get(ctx, keyName(0), cachesidecar.GetOptions{}); err != nil || string(it.Value) == "changed" {
				return fmt.Errorf("%q, %w", it.Value, err)
			}
			st, err := n.app.Stats(ctx)
			if err == nil && (st.Namespaces[0].Audit.Differed == 0 || st.Namespaces[0].Audit.Same == 0) {
				err = fmt.Errorf("%+v", st.Namespaces[0].Audit)
			}
			return err
		})
	}
}

// TestLengthyProcessRowsRestart stops PostgreSQL in the middle of loads, and restarts it. Until
// then reads get an origin error, BUSY, or the stale value that they accept; all are
// answered in time.
func TestLengthyProcessRowsRestart(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	tb, server := newTable(t)
	g := newGroup(t, fast, 3)
	l := tb.rows(g, true, briefly)
	time.Sleep(2 * time.Second)

	down := l.now()
	// SIGQUIT is an immediate shutdown, like a crash.
	testenv.Must(t, server.Process.Signal(syscall.SIGQUIT))
	_ = server.Wait()
	time.Sleep(time.Second)
	// The open breaker soon refuses loads, so that few reads get the error.
	testenv.Succeeds(t, "reads while it is down", func() error { return l.enough(map[string]int{"failed": 1, "old": 20}) })
	tb.Start(t)
	tb.Exec(t, "SELECT 1")
	up := l.now()
	for _, n := range g.nodes {
		for key := range rowKeys {
			testenv.Succeeds(t, "loads to resume", func() error {
				_, err := n.app.Get(t.Context(), keyName(key), cachesidecar.GetOptions{Fresh: true})
				return err
			})
		}
	}
	t.Logf("PostgreSQL was away for %v; %v later all loads succeed again", up-down, l.now()-up)
	time.Sleep(time.Second)
	l.outages = []stall{{0, never}} // on a busy machine a load may take longer than its time
	l.check(nil)
	l.found(0)
}
