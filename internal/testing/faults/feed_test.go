package faults

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
)

// followed starts three sidecars that follow the changes of the table, and apps that read. Other apps
// change rows, and announce nothing.
func (tb *table) followed(g *group, loads time.Duration) *load {
	g.t.Helper()
	tb.feeds(g)
	l := tb.read(g, false, loads)
	l.needs = map[string]int{"l1": 100, "l2": 100, "peer": 100, "set": rowKeys + 40} // most reads are in shared memory
	g.follower()
	for w := range 2 * writers {
		l.wg.Go(func() { l.changeAlone(tb, w) })
	}
	return l
}

// feeds has the hosts of a group follow the changes of the table.
func (tb *table) feeds(g *group) {
	g.t.Helper()
	tb.fill(g.t)
	tb.Exec(g.t, "CREATE PUBLICATION cachesidecar FOR TABLE rows")
	file := filepath.Join(g.dir, "feed")
	testenv.Must(g.t, os.WriteFile(file, []byte(tb.DSN()), 0o600))
	for _, n := range g.nodes {
		n.spec.Feed = &postgres.FeedConfig{
			DSNFile: file, Tables: map[string]postgres.FeedTable{"public.rows": {Namespace: "default", Key: "{key}"}},
		}
	}
}

// follower waits until a host follows the feed, and returns it: where statements end its stream, none does for a moment.
func (g *group) follower() (n *node) {
	g.t.Helper()
	testenv.Succeeds(g.t, "a host to follow", func() error {
		for _, n = range g.living() {
			st, err := n.app.Stats(testenv.Context(g.t))
			if err != nil {
				return err
			}
			if st.Changes[0].Following {
				return nil
			}
		}
		return errors.New("no host follows")
	})
	return n
}

// changeAlone is an app that commits a new value of a key, and announces nothing. When the feed has
// confirmed the commit, the old value has ended.
func (l *load) changeAlone(tb *table, w int) {
	last := map[int]int{}
	for l.sleep() {
		key := rand.IntN(rowKeys/writers/2)*2*writers + w
		last[key]++
		o := op{kind: set, key: key, seq: last[key] + 1, start: l.now(), life: -1, allowed: testenv.Patience, out: unknown}
		if l.insist(func() error { return tb.put(key, o.seq) }) && l.insist(tb.confirmed(l)) {
			o.out = done
		}
		o.end = l.now()
		l.record(o)
	}
}

// confirmed returns a function that fails until the feed has confirmed what is committed by now.
func (tb *table) confirmed(l *load) func() error {
	at := ""
	return func() error {
		ctx := testenv.Context(l.g.t)
		if at == "" {
			if err := tb.db.QueryRow(ctx, "SELECT pg_current_wal_insert_lsn()::text").Scan(&at); err != nil {
				at = ""
				return err
			}
		}
		var done bool
		err := tb.db.QueryRow(ctx, "SELECT replay_lsn >= $1::text::pg_lsn FROM pg_stat_replication "+
			"JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = 'cachesidecar'", at).Scan(&done)
		if err == nil && !done {
			err = errors.New("not yet")
		}
		return err
	}
}

// TestLengthyProcessFeed changes rows of a real PostgreSQL that no app announces, while apps read them at
// full rate. What the feed has confirmed is read by no app any more.
func TestLengthyProcessFeed(t *testing.T) {
	testenv.Takes(t, 10*time.Second)
	tb, _ := newTable(t, "wal_level=logical")
	g := newGroup(t, fast, 3)
	l := tb.followed(g, testenv.Patience/2)
	l.check(nil)
	l.found(0)
	st := g.feed()
	if st.Deletions == 0 || st.Gaps != 1 {
		t.Errorf("%+v: want deletions, and one gap at the start", st)
	}
	t.Logf("%d rows, %d deletions, last after %d ms", st.Rows, st.Deletions, st.LagMS)
}

// feed returns the statistics of the feed, of all hosts that live.
func (g *group) feed() (sum cachesidecar.ChangesStats) {
	for _, n := range g.living() {
		st, err := n.app.Stats(testenv.Context(g.t))
		testenv.Must(g.t, err)
		c := st.Changes[0]
		sum.Rows += c.Rows
		sum.Deletions += c.Deletions
		sum.Gaps += c.Gaps
		sum.LagMS = max(sum.LagMS, c.LagMS)
	}
	return sum
}

// TestLengthyProcessFeedFaults kills and pauses the host that follows, restarts another one, and kills
// the server, while rows change that no app announces.
func TestLengthyProcessFeedFaults(t *testing.T) {
	testenv.Takes(t, 40*time.Second)
	tb, server := newTable(t, "wal_level=logical")
	g := newGroup(t, fast, 3)
	l := tb.followed(g, briefly)
	l.outages = []stall{{0, never}} // on a busy machine a load may take longer than its time
	goesOn := func(what string) {
		t.Helper()
		g.follower()
		before := g.feed().Rows
		testenv.Succeeds(t, "the feed to go on after "+what, func() error {
			if now := g.feed(); now.Rows < before+20 {
				return fmt.Errorf("%d rows, then %d", before, now.Rows)
			}
			return nil
		})
	}
	goesOn("its start")
	for _, fault := range []func(n *node){
		func(n *node) { n.crash(); time.Sleep(time.Second); n.start() },
		func(n *node) { n.leave(); n.start() },
		func(n *node) { n.pause(); time.Sleep(4 * time.Second); n.resume() },
	} {
		n, begun := g.follower(), time.Now()
		fault(n)
		g.settle("after a fault of the host that followed", begun)
		goesOn("a fault of the host that followed")
	}
	if err := server.Process.Signal(syscall.SIGQUIT); err != nil { // like a crash
		t.Fatal(err)
	}
	_ = server.Wait()
	tb.Start(t, "wal_level=logical")
	goesOn("a crash of the server")
	l.check(nil)
	l.found(0)
}
