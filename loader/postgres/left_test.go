package postgres

import (
	"regexp"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// slotFeed returns a feed of another slot and database.
func (s *feedServer) slotFeed(slot, database string) *Feed {
	s.t.Helper()
	cfg := s.config()
	cfg.Slot, cfg.DSN = slot, cfg.DSN+" dbname="+database
	return feedOf(s.t, cfg)
}

// askElsewhere runs a statement in another database.
func (s *feedServer) askElsewhere(database, sql string) {
	s.t.Helper()
	conn, err := pgconn.Connect(s.t.Context(), s.DSN()+" dbname="+database)
	testenv.Must(s.t, err)
	defer conn.Close(s.t.Context())
	testenv.Must(s.t, testenv.ErrorOf(ask(s.t.Context(), conn, 0, sql)))
}

var leftWarning = regexp.MustCompile(`^slot left_behind of the database is not in use, and keeps \d[.\d]* [KM]?i?B ` +
	`of the server's log and what comes: if no other cluster and no subscription has it, ` +
	`(SELECT pg_drop_replication_slot\('left_behind'\))$`)

// TestFeedLeft checks that `config check` and a stream tell of a slot that is left behind in the database,
// with the statement that ends it; and of no others: the feed's own, those of other feeds of the
// configuration, those in use, those of other databases, and those of another kind.
func TestFeedLeft(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE DATABASE elsewhere")
	s.askElsewhere("elsewhere", "SELECT pg_create_logical_replication_slot('elsewhere', 'pgoutput')")
	s.Exec(t, "SELECT pg_create_logical_replication_slot('of_another_plugin', 'test_decoding')")
	s.Exec(t, "SELECT pg_create_physical_replication_slot('of_a_standby', true)")
	s.Exec(t, "SELECT pg_create_logical_replication_slot('beside', 'pgoutput')")
	feed := s.feed()
	feed.Beside([]string{s.slotFeed("beside", "another").Slot()})
	s.followFeed(feed, "").end()
	s.followFeed(s.slotFeed("in_use", "postgres"), "")
	check := func(what string, want int) (warnings []string) {
		t.Helper()
		warnings, err := feed.Check(t.Context())
		if err != nil || len(warnings) != want {
			t.Fatalf("%s: %q, %v, want %d warnings", what, warnings, err, want)
		}
		return warnings
	}
	check("nothing is left behind", 0)
	s.Exec(t, "SELECT pg_create_logical_replication_slot('left_behind', 'pgoutput')")
	m := leftWarning.FindStringSubmatch(check("a slot is left behind", 1)[0])
	if m == nil {
		t.Fatalf("the warning is %q", check("a slot is left behind", 1))
	}
	made, err := feed.Stream(t.Context(), "", "")
	testenv.Must(t, err)
	defer made.Close()
	for _, want := range []int{1, 0} { // once
		left, err := made.(*stream).LeftBehind(t.Context())
		if err != nil || len(left) != want || want > 0 && !leftWarning.MatchString(left[0]) {
			t.Errorf("the stream tells of %q, %v, want %d", left, err, want)
		}
	}
	s.Exec(t, m[1])
	check("the slot is dropped", 0)
}
