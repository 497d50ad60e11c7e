package postgres

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// TestFeedRefused checks that a server is refused that writes too little into its log, and a role that
// may not read it, with what is to be done, before a slot is made.
func TestFeedRefused(t *testing.T) {
	s := newFeedServer(t, "wal_level=replica")
	s.Exec(t, "CREATE ROLE reader LOGIN")
	const (
		level = "wal_level is replica: set it to logical in postgresql.conf, and restart the server"
		role  = `role "reader" may not replicate: ALTER ROLE "reader" REPLICATION`
	)
	for _, tc := range []struct {
		sql, user string
		want      []string
	}{
		{"SELECT 1", "tester", []string{level}},
		{"SELECT 1", "reader", []string{level, role}},
		{"ALTER ROLE reader REPLICATION", "reader", []string{level}},
	} {
		s.Exec(t, tc.sql)
		cfg := s.config()
		cfg.DSN += " user=" + tc.user
		feed := feedOf(t, cfg)
		stream := func(ctx context.Context) ([]string, error) {
			_, err := feed.Stream(ctx, "", "")
			return nil, err
		}
		for _, ask := range []func(context.Context) ([]string, error){feed.Check, stream} {
			_, err := ask(t.Context())
			for _, text := range []string{level, role} {
				want := slices.Contains(tc.want, text)
				if !errors.Is(err, loader.ErrFeed) || strings.Contains(err.Error(), text) != want {
					t.Errorf("%s as %s: %v\nwhether it says %q: want %v", tc.sql, tc.user, err, text, want)
				}
			}
		}
	}
	if rows, err := s.ask("SELECT slot_name FROM pg_replication_slots"); err != nil || len(rows) != 0 {
		t.Errorf("slots %q are left, %v", rows, err)
	}
}

// names has a stream tell of a transaction: exactly those keys and flushes come next.
func (f *followed) names(sql, want string) {
	f.t.Helper()
	f.server.Exec(f.t, sql)
	if got := text(f.next()); got != want {
		f.t.Errorf("%s: %q, want %q", sql, got, want)
	}
}

// breaks checks whether the stream says that it may leave out changes, once.
func (f *followed) breaks(after string, want bool) {
	f.t.Helper()
	for _, want := range []bool{want, false} {
		if why, err := f.FindGap(f.t.Context()); err != nil || (why != "") != want {
			f.t.Errorf("%s: it is broken by %q, %v; want %v", after, why, err, want)
		}
	}
}

// TestFeedWhileFollowed checks that a stream goes on while its tables change, that it names the keys of
// rows of before and after, and that it says so if changes of between them may be missing.
func TestFeedWhileFollowed(t *testing.T) {
	s := newFeedServer(t)
	s.Exec(t, "CREATE TABLE us (LIKE parts INCLUDING ALL)")
	s.Exec(t, "INSERT INTO us VALUES ('us', 1, 'a')")
	s.Exec(t, "CREATE TYPE mood AS ENUM ('sad', 'glad')")
	s.Exec(t, "CREATE TABLE moods (mood mood PRIMARY KEY, n int)")
	s.Exec(t, "ALTER PUBLICATION cachesidecar ADD TABLE moods")
	cfg := s.config()
	cfg.Tables["public.moods"] = FeedTable{"moods", "{mood}"}
	feed := feedOf(t, cfg)
	f := s.followFeed(feed, "")
	f.names("INSERT INTO users VALUES (1, 'a')", "users 1")
	s.Exec(t, "INSERT INTO us VALUES ('us', 2, 'a')") // it is no partition yet, and the walsender knows it as such

	attach := "ALTER TABLE parts ATTACH PARTITION us FOR VALUES IN ('us')"
	s.Exec(t, attach)
	f.names("INSERT INTO us VALUES ('us', 3, 'a')", "parts us/3")
	f.names("UPDATE parts SET body = 'b' WHERE id = 1", "parts us/1")
	f.breaks(attach, true)
	for _, how := range []string{"", " CONCURRENTLY"} {
		detach := "ALTER TABLE parts DETACH PARTITION us" + how
		s.Exec(t, detach)
		s.Exec(t, "UPDATE us SET body = 'c'")
		f.names("INSERT INTO parts VALUES ('eu', 1, 'a') ON CONFLICT (region, id) DO UPDATE SET body = 'b'", "parts eu/1")
		f.breaks(detach, true)
		s.Exec(t, attach)
		f.breaks(attach, true)
	}

	f.names("INSERT INTO moods VALUES ('sad', 1)", "moods sad")
	alter := "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'" // the row's key is another one
	s.Exec(t, alter)
	f.names("UPDATE moods SET n = 2", "moods blue")
	f.breaks(alter, true)
	alter = "ALTER TABLE users ALTER id TYPE text USING 'u' || id" // no row of it is in the log
	s.Exec(t, alter)
	f.names("UPDATE users SET name = 'b'", "users u1")
	f.breaks(alter, true)
	alter = "ALTER TABLE emails ALTER user_id TYPE numeric(9, 2)"
	f.names("INSERT INTO emails VALUES (1, 7, 'x')", "users 7")
	s.Exec(t, alter)
	f.names("UPDATE emails SET address = 'y'", "users 7.00")
	f.breaks(alter, true)

	s.Exec(t, "ALTER PUBLICATION cachesidecar DROP TABLE users")
	s.Exec(t, "INSERT INTO users VALUES ('u2', 'a')") // it is in no stream
	s.Exec(t, "ALTER PUBLICATION cachesidecar ADD TABLE users")
	f.names("INSERT INTO users VALUES ('u3', 'a')", "users u3")
	f.breaks("a table that was out of the publication", true)
	s.Exec(t, "ALTER PUBLICATION cachesidecar DROP TABLE users")
	refused(t, "a table that is out", testenv.ErrorOf(f.FindGap(t.Context())), "public.users is not in publication")
}

// TestFeedApart checks that a row names its key whose values are stored apart, and so are not sent while they
// do not change.
func TestFeedApart(t *testing.T) {
	s := newFeedServer(t)
	for _, sql := range []string{
		"CREATE TABLE wide (id text PRIMARY KEY, n int, body text, fill text)",
		"ALTER TABLE wide ALTER id SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL, ALTER fill SET STORAGE PLAIN",
		"CREATE TABLE wider (n int, id text, body text)", // as wide, with a whole old row in the log
		"ALTER TABLE wider ALTER id SET STORAGE EXTERNAL, ALTER body SET STORAGE EXTERNAL",
		"ALTER TABLE wider REPLICA IDENTITY FULL",
		"ALTER PUBLICATION cachesidecar ADD TABLE wide, wider",
	} {
		s.Exec(t, sql)
	}
	cfg := s.config()
	cfg.Tables["public.wide"] = FeedTable{"wide", "{id}"}
	cfg.Tables["public.wider"] = FeedTable{"wide", "{n}/{id}"}
	feed := feedOf(t, cfg)
	f := s.followFeed(feed, "")
	const apart = "repeat('b', 100000)" // a value that is stored apart from its row
	f.names("INSERT INTO wide VALUES ('a', 1, "+apart+")", "wide a")
	f.names("UPDATE wide SET n = 2", "wide a")
	f.names("UPDATE wide SET id = 'c'", "wide a,c")
	f.names("DELETE FROM wide", "wide c")
	k := strings.Repeat("k", 900) // the key is stored apart, since the row has no place for it
	f.names("INSERT INTO wide VALUES ('"+k+"', 1, NULL, repeat('b', 5000))", "wide "+k)
	f.names("UPDATE wide SET n = 2", "wide "+k)
	f.names("DELETE FROM wide", "wide "+k)
	f.names("INSERT INTO wider VALUES (1, '"+k+"', "+apart+")", "wide 1/"+k)
	f.names("INSERT INTO wider VALUES (1, '"+k+k+k+"', "+apart+")", "")
	f.names("UPDATE wider SET n = 2", "wide 1/"+k+",2/"+k)

	f.names("UPDATE wider SET id = id || '2'", "wide 2/"+k+",2/"+k+"2")
}

// TestFeedTransactions checks which keys transactions name that change keys, that are rolled back in part,
// that truncate tables, or that change many rows.
func TestFeedTransactions(t *testing.T) {
	s := newFeedServer(t)
	f := s.follow("")
	f.names("INSERT INTO users SELECT generate_series(1, 9); INSERT INTO parts SELECT 'eu', generate_series(1, 3)",
		"parts eu/1,eu/2,eu/3; users 1,2,3,4,5,6,7,8,9")
	f.names("BEGIN; UPDATE users SET name = 'a' WHERE id = 1; SAVEPOINT a; DELETE FROM users WHERE id = 2; "+
		"SAVEPOINT b; UPDATE users SET id = 30 WHERE id = 3; ROLLBACK TO b; DELETE FROM users WHERE id = 4; "+
		"RELEASE a; SAVEPOINT c; DELETE FROM parts; TRUNCATE users; ROLLBACK TO c; SAVEPOINT c; "+
		"UPDATE parts SET id = 4 WHERE id = 1; RELEASE c; UPDATE users SET name = 'b' WHERE id = 5; COMMIT",
		"parts eu/1,eu/4; users 1,2,4,5")
	f.breaks("a TRUNCATE that was rolled back", false)
	s.Exec(t, "BEGIN; DELETE FROM users WHERE id = 6; SAVEPOINT a; DELETE FROM users WHERE id = 7; ROLLBACK")

	s.Exec(t, "INSERT INTO users SELECT generate_series(11, 5011)")
	if m := f.next(); len(m.Changed["users"].Keys) != 5001 {
		t.Errorf("5,001 rows name %d keys", len(m.Changed["users"].Keys))
	}
	f.names("UPDATE users SET id = -id WHERE id > 10", "users: more than 10000 keys changed at once")
	f.names("UPDATE users SET name = 'c' WHERE id = 5", "users 5") // that was one transaction

	f.names("BEGIN; DELETE FROM users; TRUNCATE users CASCADE; INSERT INTO users VALUES (1); COMMIT",
		"users: a table was truncated")
	f.breaks("a TRUNCATE", true)
	f.names("TRUNCATE parts, users", "parts: a table was truncated; users: a table was truncated")
	f.breaks("a TRUNCATE of a table with partitions", true)
	for _, sql := range []string{"TRUNCATE parts_eu", "DROP TABLE parts_eu"} { // no message comes
		s.Exec(t, sql)
		f.names("INSERT INTO users VALUES (1) ON CONFLICT (id) DO UPDATE SET name = 'a'", "users 1")
		f.breaks(sql, true)
	}
}
