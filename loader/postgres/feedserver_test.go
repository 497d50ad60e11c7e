package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedUnfit checks that a server is refused on which changes would be lost or commits hang, and that
// its slot is given up: no host goes on with it.
func TestFeedUnfit(t *testing.T) {
	s := newFeedServer(t)
	for _, tc := range []struct{ wrong, want, right string }{
		{
			"ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (*)'; SELECT pg_reload_conf()", "commits hang",
			"ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf()",
		},
		{
			"ALTER PUBLICATION cachesidecar SET TABLE users WHERE (id > 5), emails, parts", "has a row filter",
			"ALTER PUBLICATION cachesidecar SET TABLE users, emails, parts",
		},
		{
			"ALTER PUBLICATION cachesidecar SET TABLE users, emails (id), parts", "has no column user_id",
			"ALTER PUBLICATION cachesidecar SET TABLE users, emails, parts",
		},
		{
			"ALTER PUBLICATION cachesidecar SET (publish_via_partition_root = false)", "set publish_via_partition_root",
			"ALTER PUBLICATION cachesidecar SET (publish_via_partition_root = true)",
		},
		{
			"ALTER TABLE emails DROP user_id; ALTER TABLE emails ADD user_id int GENERATED ALWAYS AS (id + 1) STORED",
			"generated columns", "ALTER TABLE emails DROP user_id; ALTER TABLE emails ADD user_id int",
		},
		{ // a column that an index only includes is not in the old row
			"CREATE UNIQUE INDEX wide ON emails (id) INCLUDE (user_id); ALTER TABLE emails REPLICA IDENTITY USING INDEX wide",
			"outside of its replica identity", "ALTER TABLE emails REPLICA IDENTITY FULL; DROP INDEX wide",
		},
		{
			"ALTER TABLE parts REPLICA IDENTITY DEFAULT; ALTER TABLE users DROP CONSTRAINT users_pkey; " +
				"ALTER TABLE users ADD PRIMARY KEY (id) DEFERRABLE", "a primary key that is deferrable is none",
			"ALTER TABLE users DROP CONSTRAINT users_pkey; ALTER TABLE users ADD PRIMARY KEY (id)",
		},
	} {
		s.follow("").end()
		for one := range strings.SplitSeq(tc.wrong, "; ") {
			s.Exec(t, one)
		}
		testenv.Succeeds(t, tc.wrong, func() error { // settings take a moment
			_, err := s.feed().Check(t.Context())
			if !errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), tc.want) {
				return fmt.Errorf("%v, want %q", err, tc.want)
			}
			return nil
		})
		if _, err := s.feed().Stream(t.Context(), "", ""); !errors.Is(err, loader.ErrFeed) {
			t.Errorf("%s: %v", tc.wrong, err)
		}
		if rows, err := s.ask("SELECT slot_name FROM pg_replication_slots"); err != nil || len(rows) != 0 {
			t.Errorf("%s: slots %q are left, %v", tc.wrong, rows, err)
		}
		for one := range strings.SplitSeq(tc.right, "; ") {
			s.Exec(t, one)
		}
		testenv.Succeeds(t, tc.right, func() error { return testenv.ErrorOf(s.feed().Check(t.Context())) })
	}
}

// TestFeedRelatives checks that a child by plain inheritance does not matter, whatever it is, and that a partition
// is refused in the place of the table under whose name its changes may come.
func TestFeedRelatives(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE UNLOGGED TABLE scratch () INHERITS (users)")
	feed := s.feed()
	conn, err := feed.connect(t.Context(), false)
	testenv.Must(t, err)
	defer conn.Close(t.Context())
	was, err := feed.check(t.Context(), conn)
	if err != nil {
		t.Errorf("a child by inheritance: %v", err)
	}
	s.Exec(t, "ALTER TABLE scratch ADD more int")
	if now, err := feed.check(t.Context(), conn); err != nil || now != was {
		t.Errorf("a child by inheritance has another column: %v, and the stream breaks: %v", err, now != was)
	}
	s.Exec(t, "DROP TABLE scratch")
	cfg := s.config()
	cfg.Tables["public.parts_eu"] = FeedTable{"parts", "{region}/{id}"}
	s.Exec(t, "ALTER PUBLICATION cachesidecar ADD TABLE parts_eu")
	feed = feedOf(t, cfg)
	// Only with the option do its changes come under the name of parts.
	refused(t, "a partition", testenv.ErrorOf(feed.Check(t.Context())), "public.parts_eu is not in publication")
	s.Exec(t, "ALTER PUBLICATION cachesidecar SET TABLE users, emails, parts_eu")
	delete(cfg.Tables, "public.parts")
	feed = feedOf(t, cfg)
	if _, err := feed.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "publish_via_partition_root") {
		t.Errorf("a partition that alone is published, for now: %v", err)
	}
	s.Exec(t, "ALTER PUBLICATION cachesidecar SET (publish_via_partition_root = false)")
	if _, err := feed.Check(t.Context()); err != nil {
		t.Errorf("a partition under its own name: %v", err)
	}
}

// TestFeedRoom checks that a beginning is refused, before anything is flushed, that has no room for slots.
func TestFeedRoom(t *testing.T) {
	s := newFeedServer(t, "max_replication_slots=1")
	refused(t, "room for one slot", testenv.ErrorOf(s.feed().Stream(t.Context(), "", "")), "max_replication_slots")
}

// TestFeedTexts checks that keys do not depend on what the database has set for texts.
func TestFeedTexts(t *testing.T) {
	s := newFeedServer(t)
	for _, sql := range []string{
		"CREATE TABLE days (id date PRIMARY KEY)", "ALTER PUBLICATION cachesidecar ADD TABLE days",
		"ALTER DATABASE postgres SET datestyle = 'German'",
	} {
		s.Exec(t, sql)
	}
	cfg := s.config()
	cfg.Tables["public.days"] = FeedTable{"days", "{id}"}
	feed := feedOf(t, cfg)
	f := s.followFeed(feed, "")
	s.Exec(t, "INSERT INTO days VALUES ('2026-01-02')")
	if got := text(f.next()); got != "days 2026-01-02" {
		t.Errorf("a day is %q", got)
	}
}

// TestFeedPooler checks that a pooler is refused before a sidecar starts.
func TestFeedPooler(t *testing.T) {
	s := newFeedServer(t)
	cfg := s.config()
	cfg.DSN = s.Pooler(t)
	f := feedOf(t, cfg)
	refused(t, "a pooler", testenv.ErrorOf(f.Check(t.Context())), "not a pooler")
}

// TestFeedNudge checks that the stream comes to the end of the log although a transaction is open.
func TestFeedNudge(t *testing.T) {
	s := newFeedServer(t)
	ctx := t.Context()
	stream, err := s.feed().Stream(ctx, "", "")
	if err == nil {
		err = stream.CloseGap(ctx)
	}
	testenv.Must(t, err)
	defer stream.Close()
	v, err := stream.View(ctx)
	if err == nil {
		err = stream.Nudge(ctx)
	}
	testenv.Must(t, err)
	testenv.Succeeds(t, "the stream to come to the end of the log", func() error {
		m, err := stream.Receive(ctx)
		switch {
		case err != nil:
			t.Fatal(err)
		case m == nil || m.End <= v.End:
			return fmt.Errorf("%+v has come, and the log was at %d", m, v.End)
		case m.Rows != 0:
			t.Errorf("a nudge counts as a row: %+v", m)
		}
		return nil
	})
}

// TestFeedGivenUp checks that the next stream has a gap after one that was given up.
func TestFeedGivenUp(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	f.stop()
	<-f.err
	f.stop = nil
	testenv.Must(t, f.GiveUp(t.Context()))
	f.Close()
	if again := s.follow(""); again.Gap() != "there was no slot" {
		t.Errorf("the gap is %q", again.Gap())
	}
}
