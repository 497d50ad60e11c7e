package postgres

import (
	"errors"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedBroken checks that a catalog is noticed that may have lost changes.
func TestFeedBroken(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	if why, err := f.Broken(t.Context()); why != "" || err != nil {
		t.Fatalf("nothing has changed: %q, %v", why, err)
	}
	for _, sql := range []string{
		"ALTER PUBLICATION cachesidecar DROP TABLE others; ALTER PUBLICATION cachesidecar ADD TABLE others; ALTER TABLE users ADD extra int",
		"ALTER TABLE users ALTER name TYPE varchar(10)",
		"CREATE TABLE more (LIKE parts INCLUDING ALL); ALTER TABLE parts ATTACH PARTITION more FOR VALUES IN ('us')",
		"ALTER TABLE parts DETACH PARTITION more",
		"CREATE TABLE inner_more (LIKE parts INCLUDING ALL); ALTER TABLE parts_asia ATTACH PARTITION inner_more FOR VALUES IN (1)",
	} {
		f.end()
		f = s.follow("")
		for one := range strings.SplitSeq(sql, "; ") {
			s.Exec(t, one)
		}
		if why, err := f.Broken(t.Context()); why == "" || err != nil {
			t.Errorf("%s: %q, %v", sql, why, err)
		}
	}
	f.end()
	f = s.follow("")
	for _, sql := range []string{"ALTER TABLE others ADD extra int", "TRUNCATE others", "REINDEX TABLE users", "CREATE INDEX ON users (name)"} {
		s.Exec(t, sql)
		if why, err := f.Broken(t.Context()); why != "" || err != nil {
			t.Errorf("%s: %q, %v", sql, why, err)
		}
	}
	f.end()
	s.Exec(t, "ALTER PUBLICATION cachesidecar DROP TABLE users")
	if _, err := s.feed().Stream(t.Context(), "", ""); !errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), "public.users is not in publication") {
		t.Errorf("a table that is out: %v", err)
	}
}

// TestFeedBrokenBetween checks that a catalog is also noticed that has changed between two streams, and
// that it is until one of them has begun anew.
func TestFeedBrokenBetween(t *testing.T) {
	s := newFeedServer(t)
	state := ""
	begins := func(want string, begun bool) {
		t.Helper()
		stream, err := s.feed().Stream(t.Context(), "", state)
		if err != nil {
			t.Fatal(err)
		}
		defer s.noticed()
		defer stream.Close()
		if stream.Anew() != want {
			t.Errorf("it begins anew since %q, want %q", stream.Anew(), want)
		}
		if begun {
			if err := stream.Begun(t.Context()); err != nil {
				t.Fatal(err)
			}
			state = stream.State()
		}
	}
	begins("there was no slot", true)
	begins("", true)
	s.Exec(t, "ALTER TABLE users ADD extra int")
	begins(catalogChanged, false)
	begins(catalogChanged, true)
	begins("", true)
}

// TestFeedPartitions checks that partitions are refused whose changes are in no log, or do not name their
// key: the log has what the identity of each partition says, not that of the table.
func TestFeedPartitions(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE TABLE posts (id int PRIMARY KEY, writer int) PARTITION BY LIST (id)")
	s.Exec(t, "ALTER TABLE posts REPLICA IDENTITY FULL")
	s.Exec(t, "ALTER PUBLICATION cachesidecar ADD TABLE posts")
	cfg := s.config()
	cfg.Tables["public.posts"] = FeedTable{"users", "{writer}"}
	feed, err := NewFeed(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ sql, want string }{
		{"SELECT 1", ""},
		{"CREATE TABLE one PARTITION OF posts FOR VALUES IN (1)", "column writer of its key is outside"},
		{"ALTER TABLE one REPLICA IDENTITY FULL", ""},
		{"CREATE UNLOGGED TABLE two PARTITION OF posts FOR VALUES IN (2); ALTER TABLE two REPLICA IDENTITY FULL", "or a partition of it, is unlogged"},
		{"ALTER TABLE two SET LOGGED", ""},
		{"CREATE UNIQUE INDEX pair ON two (id, writer); ALTER TABLE two ALTER writer SET NOT NULL; ALTER TABLE two REPLICA IDENTITY USING INDEX pair", ""},
		{"CREATE UNIQUE INDEX less ON two (id); ALTER TABLE two REPLICA IDENTITY USING INDEX less", "column writer of its key is outside"},
	} {
		s.Exec(t, tc.sql)
		_, err := feed.Check(t.Context())
		if (err != nil) != (tc.want != "") || err != nil && (!errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.sql, err, tc.want)
		}
	}
}
