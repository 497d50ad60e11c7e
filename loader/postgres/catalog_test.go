package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/loader"
)

// catalogSQL makes what changes of the catalog that are undone are tried on: names that need quotes, partitions
// in three levels, a table that the publication has by its schema, and a type that depends on others.
const catalogSQL = `CREATE SCHEMA other;
CREATE SCHEMA "My ""é"".s";
CREATE TABLE "My ""é"".s"."T.""x" ("I""d é" int PRIMARY KEY, body text);
INSERT INTO "My ""é"".s"."T.""x" VALUES (1, 'old');
CREATE TABLE inner_more PARTITION OF parts_asia FOR VALUES IN (1, 2) PARTITION BY LIST (id);
CREATE TABLE inmost PARTITION OF inner_more FOR VALUES IN (1);
INSERT INTO users VALUES (1, 'old');
INSERT INTO parts VALUES ('eu', 1, 'old'), ('asia', 1, 'old');
CREATE TYPE other.mood AS ENUM ('sad', 'glad');
CREATE TYPE other.feeling AS (m other.mood, n int);
CREATE DOMAIN other.feelings AS other.feeling[];
CREATE TYPE other.box AS (f other.feelings);
CREATE TYPE other.spans AS RANGE (subtype = other.box);
CREATE TABLE nested (id int PRIMARY KEY, v other.spans_multirange);
INSERT INTO nested VALUES (1, '{}');
CREATE UNIQUE INDEX pair ON users (id, name);
ALTER TABLE users ALTER name SET NOT NULL;
CREATE UNIQUE INDEX eu_pair ON parts_eu (region, id, body);
ALTER TABLE parts_eu ALTER body SET NOT NULL;
ALTER PUBLICATION cachesidecar ADD TABLE nested;
ALTER PUBLICATION cachesidecar ADD TABLES IN SCHEMA "My ""é"".s";`

// session opens a connection that stays, and returns how statements run on it.
func (s *feedServer) session() func(sql string) {
	s.t.Helper()
	conn, err := pgconn.Connect(s.t.Context(), s.DSN())
	testenv.Must(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return func(sql string) {
		s.t.Helper()
		if _, err := conn.Exec(s.t.Context(), sql).ReadAll(); err != nil {
			s.t.Fatalf("%s: %v", sql, err)
		}
	}
}

// TestFeedBroken checks that a change of the catalog is noticed that may have lost changes, also one that is undone
// before anybody looks, in one transaction or in several ("|"): the rows that change meanwhile are in no stream.
func TestFeedBroken(t *testing.T) {
	s := newFeedServer(t)
	do := s.session()
	for sql := range strings.SplitSeq(catalogSQL, ";\n") {
		do(sql)
	}
	cfg := s.config()
	cfg.Tables[`"My ""é"".s"."T.""x"`] = FeedTable{"quoted", `{I"d é}`}
	cfg.Tables["public.nested"] = FeedTable{"nested", "{id}"}
	feed := feedOf(t, cfg)
	f := s.followFeed(feed, "")
	f.names(`UPDATE "My ""é"".s"."T.""x" SET body = 'new'`, "quoted 1")
	schema := `"My ""é"".s"`
	for _, sql := range []string{
		"ALTER TABLE users RENAME TO x; UPDATE x SET name = 'b'; ALTER TABLE x RENAME TO users",
		"ALTER TABLE users RENAME TO x|UPDATE x SET name = 'b'|ALTER TABLE x RENAME TO users",
		"ALTER TABLE users SET SCHEMA other; UPDATE other.users SET name = 'b'; ALTER TABLE other.users SET SCHEMA public",
		"ALTER SCHEMA " + schema + " RENAME TO x; UPDATE x.\"T.\"\"x\" SET body = 'b'; ALTER SCHEMA x RENAME TO " + schema,
		"ALTER TABLE users RENAME id TO x; UPDATE users SET name = 'c'; ALTER TABLE users RENAME x TO id",
		"ALTER TABLE emails RENAME id TO x; ALTER TABLE emails RENAME user_id TO id; UPDATE emails SET address = 'c'; ALTER TABLE emails RENAME id TO user_id; ALTER TABLE emails RENAME x TO id",
		"ALTER TABLE users ADD c int DEFAULT 3; UPDATE users SET name = 'd' WHERE c = 3; ALTER TABLE users DROP c",
		"ALTER TABLE users REPLICA IDENTITY USING INDEX pair; UPDATE users SET id = 1; ALTER TABLE users REPLICA IDENTITY DEFAULT",
		"ALTER TABLE parts_eu REPLICA IDENTITY USING INDEX eu_pair; DELETE FROM parts_eu; ALTER TABLE parts_eu REPLICA IDENTITY DEFAULT",
		"ALTER TABLE parts_eu SET UNLOGGED|UPDATE parts SET body = 'e'|ALTER TABLE parts_eu SET LOGGED",
		"ALTER TABLE users INHERIT others; ALTER TABLE users NO INHERIT others",
		"CREATE TABLE x (LIKE users INCLUDING ALL); INSERT INTO x SELECT * FROM users; ALTER PUBLICATION cachesidecar ADD TABLE x; DROP TABLE users; ALTER TABLE x RENAME TO users; CREATE UNIQUE INDEX pair ON users (id, name)",
		"ALTER TABLE parts DETACH PARTITION parts_eu; INSERT INTO parts_eu VALUES ('eu', 2, 'b'); ALTER TABLE parts ATTACH PARTITION parts_eu FOR VALUES IN ('eu')",
		"ALTER TABLE parts DETACH PARTITION parts_eu CONCURRENTLY|INSERT INTO parts_eu VALUES ('eu', 3, 'b')|ALTER TABLE parts ATTACH PARTITION parts_eu FOR VALUES IN ('eu')",
		"ALTER TABLE inner_more DETACH PARTITION inmost; UPDATE inmost SET body = 'c'; ALTER TABLE inner_more ATTACH PARTITION inmost FOR VALUES IN (1)",
		"ALTER TABLE inner_more DETACH PARTITION inmost CONCURRENTLY|UPDATE inmost SET body = 'd'|ALTER TABLE inner_more ATTACH PARTITION inmost FOR VALUES IN (1)",
		"ALTER TABLE parts DETACH PARTITION parts_asia; UPDATE inmost SET body = 'e'; ALTER TABLE parts ATTACH PARTITION parts_asia FOR VALUES IN ('asia')",
		"TRUNCATE inmost; INSERT INTO inmost VALUES ('asia', 1, 'f')",
		"ALTER PUBLICATION cachesidecar DROP TABLE users; UPDATE users SET name = 'f'; ALTER PUBLICATION cachesidecar ADD TABLE users",
		"ALTER PUBLICATION cachesidecar DROP TABLE users|UPDATE users SET name = 'g'|ALTER PUBLICATION cachesidecar ADD TABLE users",
		"ALTER PUBLICATION cachesidecar DROP TABLES IN SCHEMA " + schema + "; UPDATE " + schema + ".\"T.\"\"x\" SET body = 'c'; ALTER PUBLICATION cachesidecar ADD TABLES IN SCHEMA " + schema,
		"ALTER PUBLICATION cachesidecar SET TABLE users WHERE (id > 5), TABLES IN SCHEMA " + schema + "; UPDATE users SET name = 'h'; ALTER PUBLICATION cachesidecar SET TABLE users, emails, parts, others, nested, TABLES IN SCHEMA " + schema,
		"ALTER PUBLICATION cachesidecar SET (publish = 'insert'); UPDATE users SET name = 'i'; ALTER PUBLICATION cachesidecar SET (publish = 'insert, update, delete, truncate')",
		"ALTER PUBLICATION cachesidecar SET (publish_via_partition_root = false); UPDATE parts SET body = 'j'; ALTER PUBLICATION cachesidecar SET (publish_via_partition_root = true)",
		"ALTER PUBLICATION cachesidecar RENAME TO x; ALTER PUBLICATION x RENAME TO cachesidecar",
		"ALTER TYPE other.mood RENAME VALUE 'sad' TO 'x'; ALTER TYPE other.mood RENAME VALUE 'x' TO 'sad'",
		"ALTER TYPE other.mood ADD VALUE 'blue' BEFORE 'glad'",
		"ALTER TYPE other.feeling RENAME ATTRIBUTE n TO x; ALTER TYPE other.feeling RENAME ATTRIBUTE x TO n",
		"ALTER TYPE other.feeling RENAME TO x; ALTER TYPE other.x RENAME TO feeling",
		"CREATE TYPE other.plain AS (a int, b int)|ALTER TABLE users ADD v other.plain[]",
		"ALTER TYPE other.plain ADD ATTRIBUTE c int CASCADE; ALTER TYPE other.plain DROP ATTRIBUTE c CASCADE",
		"ALTER TABLE users ALTER name TYPE varchar(10)",
		"CREATE TABLE more (LIKE parts INCLUDING ALL)|ALTER TABLE parts ATTACH PARTITION more FOR VALUES IN ('us')",
		"ALTER TABLE parts DETACH PARTITION more",
		"ALTER TABLE inmost SET (fillfactor = 50)|ALTER TABLE inmost RESET (fillfactor)",
	} {
		for one := range strings.SplitSeq(sql, "|") {
			do(one)
		}
		f.breaks(sql, true)
	}
	for _, sql := range []string{
		"ALTER TABLE others ADD extra int; ALTER TABLE others DROP extra",
		"BEGIN; ALTER TABLE users RENAME TO x; UPDATE x SET name = 'k'; ROLLBACK",
		"UPDATE users SET name = 'l'; DELETE FROM users; INSERT INTO users VALUES (1, 'm')",
		"VACUUM users, parts", "ANALYZE", "VACUUM FREEZE pg_class", "VACUUM FULL pg_class", "VACUUM FULL pg_attribute", "TRUNCATE others",
		"CREATE INDEX another ON users (name)", "REINDEX TABLE users", "COMMENT ON TABLE users IS 'x'",
		"CREATE TABLE x (id int); ALTER PUBLICATION cachesidecar ADD TABLE x", "DROP TABLE x",
		"CREATE TYPE other.unused AS ENUM ('a')",
	} {
		do(sql)
		f.breaks(sql, false)
	}
	f.end()
	do("ALTER PUBLICATION cachesidecar DROP TABLE users")
	refused(t, "a table that is out", testenv.ErrorOf(feed.Stream(t.Context(), "", "")), "public.users is not in publication")
}

// catalogHangs checks a change of the catalog whose commit hangs, since it waits for a standby: the stream goes by
// it, and leaves out the table. It is noticed while it hangs, though readers do not see it, and again when it
// ends: also one that is undone, and one of a savepoint. Until then it counts as open.
func (f *followed) catalogHangs() {
	f.t.Helper()
	for _, sql := range []string{
		"BEGIN; ALTER PUBLICATION cachesidecar DROP TABLE users; ALTER PUBLICATION cachesidecar ADD TABLE users; COMMIT",
		"BEGIN; SAVEPOINT a; ALTER TABLE parts_eu RENAME TO x; RELEASE a; ALTER TABLE x RENAME TO parts_eu; COMMIT",
		"ALTER TABLE parts DETACH PARTITION parts_eu",
	} {
		f.breaks("nothing", false)
		end := f.server.hangs(sql)
		f.breaks("while it hangs: "+sql, true)
		was, err := f.View(f.t.Context())
		now, err2 := f.View(f.t.Context())
		if err := errors.Join(err, err2); err != nil || now.Outlives(was.Snapshot) {
			f.t.Errorf("all has ended while it hangs: %s: %v", sql, err)
		}
		end()
		f.breaks("when it has ended: "+sql, true)
		if now, err = f.View(f.t.Context()); err != nil || !now.Outlives(was.Snapshot) {
			f.t.Errorf("it has not ended: %s: %v", sql, err)
		}
	}
	do := f.server.session()
	for _, sql := range []string{"BEGIN; ALTER TABLE users RENAME TO x", "ROLLBACK"} {
		do(sql)
		f.breaks(sql, true)
	}
}

// TestFeedBrokenBetween checks that a catalog is also noticed that has changed between two streams, and
// that it is until one of them has begun anew.
func TestFeedBrokenBetween(t *testing.T) {
	s := newFeedServer(t)
	known := loader.Checkpoint("")
	begins := func(want loader.Gap, begun bool) {
		t.Helper()
		stream, err := s.feed().Stream(t.Context(), "", known)
		testenv.Must(t, err)
		defer s.noticed()
		defer stream.Close()
		if stream.Gap() != want {
			t.Errorf("the gap is %q, want %q", stream.Gap(), want)
		}
		if begun {
			testenv.Must(t, stream.CloseGap(t.Context()))
			known = stream.Checkpoint()
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
	s.Exec(t, "CREATE TABLE news (id int) PARTITION BY LIST (id); CREATE TABLE news_1 PARTITION OF news FOR VALUES IN (1) PARTITION BY LIST (id)")
	s.Exec(t, "CREATE FOREIGN DATA WRAPPER far; CREATE SERVER far FOREIGN DATA WRAPPER far; CREATE FOREIGN TABLE abroad (id int) SERVER far")
	s.Exec(t, "ALTER PUBLICATION cachesidecar ADD TABLE posts, news")
	cfg := s.config()
	cfg.Tables["public.posts"] = FeedTable{"users", "{writer}"}
	cfg.Tables["public.news"] = FeedTable{"users", "{id}"}
	feed := feedOf(t, cfg)
	for _, tc := range []struct{ sql, want string }{
		{"SELECT 1", ""},
		{"CREATE TABLE one PARTITION OF posts FOR VALUES IN (1)", "column writer of its key is outside"},
		{"ALTER TABLE one REPLICA IDENTITY FULL", ""},
		{"CREATE UNLOGGED TABLE two PARTITION OF posts FOR VALUES IN (2); ALTER TABLE two REPLICA IDENTITY FULL", "or a partition of it, is unlogged"},
		{"ALTER TABLE two SET LOGGED", ""},
		{"CREATE UNIQUE INDEX pair ON two (id, writer); ALTER TABLE two ALTER writer SET NOT NULL; ALTER TABLE two REPLICA IDENTITY USING INDEX pair", ""},
		{"ALTER TABLE news ATTACH PARTITION abroad FOR VALUES IN (2)", "table public.news has a partition that is a foreign table"},
		{"ALTER TABLE news DETACH PARTITION abroad; ALTER TABLE news_1 ATTACH PARTITION abroad FOR VALUES IN (1)", "has a partition that is a foreign table"},
		{"ALTER TABLE news_1 DETACH PARTITION abroad", ""},
		{"CREATE UNIQUE INDEX less ON two (id); ALTER TABLE two REPLICA IDENTITY USING INDEX less", "column writer of its key is outside"},
	} {
		s.Exec(t, tc.sql)
		_, err := feed.Check(t.Context())
		if (err != nil) != (tc.want != "") || err != nil && (!errors.Is(err, loader.ErrFeed) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.sql, err, tc.want)
		}
	}
}
