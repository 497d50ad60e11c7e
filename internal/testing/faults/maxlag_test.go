package faults

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

var maxLagFor = flag.Duration("maxlag.for", 0, "how long rows change under faults of a feed with max_lag; 0: each fault once")

// changeInTime is an app that commits new values of a key, and announces nothing. max_lag after the
// commit the old value has ended.
func (l *load) changeInTime(tb *table, key int, maxLag time.Duration) {
	for seq := 2; l.sleep(); seq++ {
		o := op{kind: set, key: key, seq: seq, start: l.now(), life: -1, allowed: testenv.Patience, out: unknown}
		put := tb.put
		if rand.IntN(25) == 0 {
			put = tb.putUnsent
		}
		if l.insist(func() error { return put(key, o.seq) }) {
			time.Sleep(maxLag)
			o.out = done
		}
		o.end = l.now()
		l.record(o)
		time.Sleep(rand.N(time.Second))
	}
}

// unsent are changes of the catalog, and what undoes them. The log does not have a row that changes in between.
var unsent = []struct{ change, table, undo string }{
	{"ALTER TABLE rows RENAME TO away", "away", "ALTER TABLE away RENAME TO rows"},
	{"CREATE SCHEMA away; ALTER TABLE rows SET SCHEMA away", "away.rows", "ALTER TABLE away.rows SET SCHEMA public; DROP SCHEMA away"},
	{"ALTER PUBLICATION cachesidecar DROP TABLE rows", "rows", "ALTER PUBLICATION cachesidecar ADD TABLE rows"},
	{"ALTER PUBLICATION cachesidecar SET (publish = 'insert')", "rows", "ALTER PUBLICATION cachesidecar SET (publish = 'insert, update, delete, truncate')"},
}

// putUnsent commits a new row, of which the log tells nothing.
func (tb *table) putUnsent(key, seq int) error {
	ctx, cancel := context.WithTimeout(context.Background(), appTimeout)
	defer cancel()
	how := unsent[rand.IntN(len(unsent))]
	return pgx.BeginFunc(ctx, tb.db, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, how.change)
		if err == nil {
			_, err = tx.Exec(ctx, "UPDATE "+how.table+" SET body = $2 WHERE key = $1", keyName(key), string(value(key, seq)))
		}
		if err == nil {
			_, err = tx.Exec(ctx, how.undo)
		}
		return err
	})
}

// signalFeed sends a signal to the process of the server that sends its log to the feed.
func (tb *table) signalFeed(t *testing.T, s syscall.Signal) {
	t.Helper()
	var pid int
	testenv.Succeeds(t, "a process that sends the log", func() error {
		return tb.db.QueryRow(testenv.Context(t), "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'cachesidecar' AND active").Scan(&pid)
	})
	testenv.Must(t, syscall.Kill(pid, s))
}

// isLate returns a function that fails until the feed is late at the host, or is in time.
func (n *node) isLate(t *testing.T, want bool) func() error {
	return func() error {
		st, err := n.app.Stats(testenv.Context(t))
		if err != nil {
			return err
		}
		if c := st.Changes[0]; c.Late != want {
			return fmt.Errorf("%s: late: %v, certified %d ms ago", n.spec.Node, c.Late, c.CertifiedMS)
		}
		return nil
	}
}

// TestLengthyProcessMaxLag changes rows of a real PostgreSQL that no app announces, some of them while the
// catalog has changed, so that the log does not have them, while hosts and server fail and the server sends its log
// too late. No app reads what readers of the server have not
// seen for max_lag and max_staleness.
func TestLengthyProcessMaxLag(t *testing.T) {
	testenv.Takes(t, 110*time.Second)
	for begun, i := time.Now(), 0; i == 0 || time.Since(begun) < *maxLagFor && !t.Failed(); i++ {
		t.Run(strconv.Itoa(i), changeUnderFaults)
	}
}

// moveSlot has the feed's role be refused, as a server does that fails over, and meanwhile somebody move the slot: what
// rows have changed until then does not come.
func (tb *table) moveSlot(t *testing.T, how ...string) {
	t.Helper()
	tb.Exec(t, "ALTER ROLE feed NOLOGIN")
	tb.Exec(t, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'feed'")
	time.Sleep(2 * time.Second) // rows change
	for _, sql := range how {
		tb.Exec(t, sql)
	}
	tb.Exec(t, "ALTER ROLE feed LOGIN")
}

func changeUnderFaults(t *testing.T) {
	tb, server := newTable(t, "wal_level=logical")
	g := newGroup(t, fast, 3)
	const maxLag = 4 * fast
	tb.feeds(g)
	tb.Exec(t, "CREATE ROLE feed LOGIN SUPERUSER REPLICATION")
	testenv.Must(t, os.WriteFile(g.nodes[0].spec.Feed.DSNFile, []byte(tb.DSN()+" user=feed"), 0o600))
	for _, n := range g.nodes {
		n.spec.MaxLag = maxLag
	}
	l := tb.read(g, false, briefly)
	l.needs = map[string]int{"l1": 100, "l2": 100, "peer": 100, "set": rowKeys + 40}
	l.outages = []stall{{0, never}} // while the feed is late, all reads load
	for key := range rowKeys {
		l.wg.Go(func() { l.changeInTime(tb, key, maxLag) })
	}
	is := func(what string, want bool) {
		t.Helper()
		for _, n := range g.living() {
			testenv.Succeeds(t, what, n.isLate(t, want))
		}
	}
	faults := []func(n *node){
		func(n *node) { n.crash(); time.Sleep(time.Second); n.start() },
		func(n *node) { n.leave(); n.start() },
		func(n *node) { n.pause(); time.Sleep(4 * time.Second); n.resume() },
		func(*node) { // the server sends nothing
			tb.signalFeed(t, syscall.SIGSTOP)
			is("all hosts to be late", true)
			time.Sleep(2 * time.Second)
			tb.signalFeed(t, syscall.SIGCONT)
		},
		func(*node) { // the server crashes
			testenv.Must(t, server.Process.Signal(syscall.SIGQUIT))
			_ = server.Wait()
			time.Sleep(rand.N(2 * maxLag))
			server = tb.Start(t, "wal_level=logical")
		},
		func(*node) {
			tb.moveSlot(t, "SELECT pg_drop_replication_slot('cachesidecar')",
				"SELECT pg_create_logical_replication_slot('cachesidecar', 'pgoutput')")
		},
		func(*node) {
			tb.moveSlot(t, "SELECT pg_replication_slot_advance('cachesidecar', pg_current_wal_lsn())")
		},
		func(*node) {
			tb.moveSlot(t, "SELECT count(*) FROM pg_logical_slot_get_binary_changes('cachesidecar', NULL, NULL, "+
				"'proto_version', '1', 'publication_names', 'cachesidecar')")
		},
		func(*node) { // the server could not read what has changed meanwhile
			tb.Exec(t, "DROP PUBLICATION cachesidecar")
			time.Sleep(2 * time.Second)
			tb.Exec(t, "CREATE PUBLICATION cachesidecar FOR TABLE rows")
		},
	}
	const moved = 5 // the first fault in which changes get lost
	is("the feed to be in time", false)
	for i, fault := range faults {
		n, gaps, at := g.follower(), g.feed().Gaps, time.Now()
		fault(n)
		g.settle("after a fault", at)
		is("the feed to be in time after fault "+strconv.Itoa(i), false)
		if i >= moved {
			testenv.Succeeds(t, "a gap after fault "+strconv.Itoa(i), func() error {
				if now := g.feed().Gaps; now == gaps {
					return fmt.Errorf("%d gaps, as before", now)
				}
				return nil
			})
		}
		time.Sleep(2 * time.Second) // what is cached is served, and changes
	}
	t.Logf("%d gaps", g.feed().Gaps)
	l.check(nil)
	l.found(0)
}
