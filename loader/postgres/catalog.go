package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// leastVersion is the first PostgreSQL with pg_publication_namespace.
const leastVersion = 150000

func checkVersion(version string) error {
	if n, err := strconv.Atoi(version); err != nil || n < leastVersion {
		return fmt.Errorf("%w: the server has version %s: the feed needs PostgreSQL 15 or later, since it looks at "+
			"the schemas of a publication, which an earlier one does not have", loader.ErrFeed, version)
	}
	return nil
}

// serverQuery asks what the server must be like.
const serverQuery = `SELECT current_setting('server_version_num'), current_setting('wal_level'),
	pg_is_in_recovery(), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
	current_setting('max_slot_wal_keep_size'), current_setting('synchronous_standby_names'), current_user`

// tablesQuery asks for the columns that keys name, with the partitions of their tables: the log has the rows
// of a partitioned table as its partitions say. Each of them must be logged, and have the column in its identity.
const tablesQuery = `WITH RECURSIVE
	wanted(place, schema, name, col) AS (VALUES %[2]s),
	below AS (SELECT DISTINCT c.oid AS root, c.oid FROM wanted w
			JOIN pg_namespace n ON n.nspname = w.schema JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
		UNION SELECT root, inhrelid FROM below JOIN pg_inherits ON inhparent = below.oid
			JOIN pg_class p ON p.oid = inhrelid AND p.relispartition),
	parts AS (SELECT root, c.oid, c.relkind, c.relreplident, c.relpersistence = 'p' AS logged,
			c.relkind = 'f' AND c.relispartition AS away
		FROM below JOIN pg_class c ON c.oid = below.oid)
SELECT place, w.col, c.oid IS NOT NULL, t.rowfilter,
	(SELECT bool_and(logged) FROM parts WHERE root = c.oid), (SELECT bool_or(away) FROM parts WHERE root = c.oid),
	coalesce(a.attname = ANY (t.attnames), a.attname IS NOT NULL) AND a.attgenerated = '',
	(SELECT coalesce(bool_and(p.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i
			JOIN pg_attribute b ON b.attrelid = i.indrelid AND b.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
			WHERE i.indrelid = p.oid AND b.attname = w.col AND CASE p.relreplident
				WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary AND i.indimmediate ELSE false END)), true)
		FROM parts p WHERE p.root = c.oid AND (p.relkind = 'r' AND (p.oid = c.oid OR c.relkind = 'p'))),
	c.relispartition
	FROM wanted w
	LEFT JOIN pg_publication_tables t ON t.pubname = %[1]s AND t.schemaname = w.schema AND t.tablename = w.name
	LEFT JOIN pg_class c ON c.relname = t.tablename
		AND c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = t.schemaname)
	LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND a.attnum > 0 ORDER BY 1, 2`

// catalogQuery asks for the publication, and for what may not change while the stream goes on. A table that is
// renamed, or leaves the publication or its partitions, sends no change of its rows, and types have values that
// are in no row. All of that may be undone before the next look. So the answer has the transaction that wrote each
// row of the catalog, xmin, which no undoing brings back: of the tables, what is above and below them, the types
// that their columns depend on, and the publication. Partitions have the columns of their root, whose rows are
// written whenever theirs are. What becomes of other tables changes no key. Freezing keeps
// xmin, and statistics are written in place.
//
// xmax is the transaction that replaces a row, while it is not older than all that have not ended. The stream goes
// by what it has changed once its commit is in the log. Readers, and this query, do so later: a commit may wait for
// a synchronous standby. So the answer is another one before its end, and again after it.
const catalogQuery = `WITH RECURSIVE
	pub AS (SELECT * FROM pg_publication WHERE pubname = %[1]s),
	mapped AS (SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE (n.nspname, c.relname) IN (%[2]s)),
	above AS (SELECT oid FROM mapped UNION SELECT inhparent FROM pg_inherits JOIN above ON inhrelid = oid),
	below AS (SELECT oid FROM mapped UNION SELECT inhrelid FROM pg_inherits JOIN below ON inhparent = below.oid
		JOIN pg_class p ON p.oid = inhrelid AND p.relispartition),
	types AS (SELECT atttypid AS oid FROM pg_attribute JOIN mapped ON attrelid = oid WHERE attnum > 0
		UNION SELECT d.oid FROM types JOIN pg_type y ON y.oid = types.oid
			LEFT JOIN pg_range r ON y.oid IN (r.rngtypid, r.rngmultitypid)
			LEFT JOIN pg_attribute a ON a.attrelid = y.typrelid AND a.attnum > 0
			CROSS JOIN LATERAL (VALUES (y.typelem), (y.typbasetype), (r.rngsubtype), (a.atttypid)) d(oid)
			WHERE d.oid <> 0),
	columned AS (SELECT oid FROM mapped
		UNION SELECT typrelid FROM pg_type y JOIN types ON types.oid = y.oid WHERE typrelid <> 0),
	classes AS (SELECT oid FROM above UNION SELECT oid FROM below UNION SELECT oid FROM columned),
	schemas AS (SELECT relnamespace AS oid FROM pg_class c JOIN classes ON classes.oid = c.oid
		UNION SELECT typnamespace FROM pg_type y JOIN types ON types.oid = y.oid),
	written AS (SELECT xmin, xmax FROM pg_publication WHERE pubname = %[1]s
		UNION ALL SELECT xmin, xmax FROM pg_publication_rel
			WHERE prpubid = (SELECT oid FROM pub) AND prrelid IN (SELECT oid FROM classes)
		UNION ALL SELECT xmin, xmax FROM pg_publication_namespace
			WHERE pnpubid = (SELECT oid FROM pub) AND pnnspid IN (SELECT oid FROM schemas)
		UNION ALL SELECT xmin, xmax FROM pg_namespace WHERE oid IN (SELECT oid FROM schemas)
		UNION ALL SELECT xmin, xmax FROM pg_class WHERE oid IN (SELECT oid FROM classes)
		UNION ALL SELECT xmin, xmax FROM pg_attribute WHERE attrelid IN (SELECT oid FROM columned) AND attnum > 0
		UNION ALL SELECT xmin, xmax FROM pg_inherits WHERE inhrelid IN (SELECT oid FROM classes)
		UNION ALL SELECT xmin, xmax FROM pg_index
			WHERE indrelid IN (SELECT oid FROM classes) AND (indisprimary OR indisreplident)
		UNION ALL SELECT xmin, xmax FROM pg_type WHERE oid IN (SELECT oid FROM types)
		UNION ALL SELECT xmin, xmax FROM pg_enum WHERE enumtypid IN (SELECT oid FROM types))
SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, encode(sha256(writers::bytea), 'hex')
	FROM (SELECT string_agg(writers, ',' ORDER BY writers COLLATE "C") AS writers
		FROM (SELECT concat_ws('/', xmin, replacing, count(*)) AS writers
			FROM (SELECT xmin, CASE WHEN age(xmax) <= (SELECT age(pg_snapshot_xmin(pg_current_snapshot())::xid))
				THEN xmax END AS replacing FROM written) w GROUP BY xmin, replacing) g) d
	LEFT JOIN pub ON true`

// check asks the server whether the settings fit it. It returns a digest of what must stay the same
// while the stream goes on.
func (f *Feed) check(ctx context.Context, conn *pgconn.PgConn) (digest string, err error) {
	server, err := one(ask(ctx, conn, 7, serverQuery))
	if err != nil {
		return "", err
	}
	if err := checkVersion(server[0]); err != nil { // the other statements do not fit it
		return "", err
	}
	var wrong settings.Problems
	f.checkServer(server, &wrong)
	wanted, names := f.wanted()
	catalog, err := one(ask(ctx, conn, 3, fmt.Sprintf(catalogQuery, quoted(f.cfg.Publication), names)))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q\n%s", catalog, wanted)
	digest = string(h.Sum(nil))
	var columns map[column]keyColumn
	last := f.fits.Load()
	fits := last != nil && digest == last.digest // the answers about tables come from the same rows
	if fits {
		columns = last.columns
	}
	switch catalog[0] {
	case "":
		wrong.Add(fmt.Errorf("there is no publication %s: `cachesidecar changes sql` prints the statements that "+
			"make it",
			f.cfg.Publication))
	case "f":
		wrong.Add(fmt.Errorf("publication %s leaves out inserts, updates, deletes or truncations: have it publish "+
			"all four",
			f.cfg.Publication))
	}
	if !fits {
		rows, err := ask(ctx, conn, 9, fmt.Sprintf(tablesQuery, quoted(f.cfg.Publication), wanted))
		if err != nil {
			return "", err
		}
		f.checkTables(rows, catalog[1] == "f", &wrong)
		if columns, err = f.keyColumns(ctx, conn, wanted); err != nil {
			return "", err
		}
	}
	f.checkSpellings(ctx, digest, columns, &wrong)
	var misfits settings.Problems
	for _, err := range settings.Each(wrong.Err()) {
		misfits.Add(fmt.Errorf("%w: %w", loader.ErrFeed, err))
	}
	if err := misfits.Err(); err != nil {
		return "", err
	}
	f.fits.Store(&fitted{digest, columns})
	return digest, nil
}

// wanted returns the columns that keys name, as rows of VALUES, and the names of their tables.
func (f *Feed) wanted() (columns, names string) {
	var list, tables []string
	for i, m := range f.ordered() {
		tables = append(tables, "("+quoted(m.table.schema)+", "+quoted(m.table.name)+")")
		for _, c := range m.columns {
			list = append(list,
				fmt.Sprintf("(%d, %s, %s, %s)", i, quoted(m.table.schema), quoted(m.table.name), quoted(c)))
		}
	}
	return strings.Join(list, ", "), strings.Join(tables, ", ")
}

func (f *Feed) checkServer(row []string, wrong *settings.Problems) {
	if row[1] != "logical" {
		wrong.Add(fmt.Errorf("wal_level is %s: set it to logical in postgresql.conf, and restart the server", row[1]))
	}
	if row[2] == "t" {
		wrong.Add(errors.New("the server is a standby: give the primary"))
	}
	if row[3] != "t" {
		wrong.Add(fmt.Errorf("role %q may not replicate: ALTER ROLE %s REPLICATION", row[6], identifier(row[6])))
	}
	// A commit would wait for the feed, which waits until readers see the commit.
	if anyStandby.MatchString(row[5]) {
		wrong.Add(fmt.Errorf("synchronous_standby_names is %q, which takes the feed for a standby, so that "+
			"commits hang: "+
			"name the standbys, without * and cachesidecar", row[5]))
	}
}

// anyStandby matches a list of synchronous standbys that has the feed's application_name.
var anyStandby = regexp.MustCompile(`(?i)\*|(^|[\s,("])cachesidecar($|[\s,)"])`)

// checkTables checks the columns that keys name, one row for each. leaves: the publication has partitions under
// their own names.
func (f *Feed) checkTables(rows [][]string, leaves bool, wrong *settings.Problems) {
	tables, most := f.ordered(), 0
	for _, m := range tables {
		most += len(m.columns)
	}
	told := map[string]bool{}
	for _, r := range rows {
		m, err := placed(tables, r[0])
		if err != nil || len(rows) > most {
			wrong.Add(errUnknownForm)
			return
		}
		if !told[r[0]] {
			told[r[0]] = true
			f.checkTable(m.as, r, leaves, wrong)
		}
		if r[2] == "t" {
			checkColumn(m.as, r, wrong)
		}
	}
}

func (f *Feed) checkTable(name string, r []string, leaves bool, wrong *settings.Problems) {
	switch {
	case r[2] != "t" && leaves:
		wrong.Add(fmt.Errorf("table %s is not in publication %s: add it, or leave it out of tables; if it has "+
			"partitions, "+
			"set publish_via_partition_root of the publication", name, f.cfg.Publication))
	case r[2] != "t":
		wrong.Add(fmt.Errorf("table %s is not in publication %s: add it, or leave it out of "+
			"tables", name, f.cfg.Publication))
	case r[8] == "t" && !leaves:
		wrong.Add(fmt.Errorf("table %s is a partition, and publication %s has publish_via_partition_root, by "+
			"which its changes "+
			"may come under the name of a table above it: give that table in its place, or take the option away",
			name, f.cfg.Publication))
	case r[5] == "t":
		wrong.Add(fmt.Errorf("table %s has a partition that is a foreign table, whose changes are in no log of "+
			"this server: "+
			"detach the partition, or leave the table out of tables", name))
	case r[4] != "t":
		wrong.Add(fmt.Errorf("table %s, or a partition of it, is unlogged or temporary: its changes are in no "+
			"log", name))
	case r[3] != "":
		wrong.Add(fmt.Errorf("table %s has a row filter in publication %s, which hides changes: take the filter away",
			name, f.cfg.Publication))
	}
}

func checkColumn(name string, r []string, wrong *settings.Problems) {
	switch column := r[1]; {
	case r[6] != "t":
		wrong.Add(fmt.Errorf("table %s has no column %s in the publication, which its key names: generated columns "+
			"are not there", name, column))
	case r[7] == "f":
		wrong.Add(fmt.Errorf("table %s: column %s of its key is outside of its replica identity, or of a partition's, "+
			"so that a deletion does not name it (a primary key that is deferrable is none): "+
			"ALTER TABLE … REPLICA IDENTITY FULL, or USING INDEX one with the column", name, column))
	}
}

// warnings returns what the server makes dangerous although it works.
func (f *Feed) warnings(row []string) (list []string) {
	if row[4] == "-1" {
		list = append(list, "max_slot_wal_keep_size is -1: a slot whose cluster has gone fills the server's disk")
	}
	return list
}

// Check asks the server whether the settings fit it. It returns what works and is dangerous.
func (f *Feed) Check(ctx context.Context) (warnings []string, err error) {
	conn, err := f.connect(ctx, false)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(ctx) }() // nothing is lost
	if _, err := f.check(ctx, conn); err != nil {
		return nil, err
	}
	if _, err := f.slotOf(ctx, conn); err != nil {
		return nil, err
	}
	stream, err := f.connect(ctx, true) // which a pooler refuses
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close(ctx) }() // nothing is lost
	server, err := one(ask(ctx, conn, 7, serverQuery))
	if err != nil {
		return nil, err
	}
	_, left, err := f.leftSlots(ctx, conn)
	return append(f.warnings(server), left...), err
}

// SQL returns the statements that make the publication and a role for the feed.
func (f *Feed) SQL() string {
	var tables []string
	for _, m := range f.ordered() {
		tables = append(tables, identifier(m.table.schema)+"."+identifier(m.table.name))
	}
	return fmt.Sprintf(`-- Once, as the owner of the tables. wal_level must be logical (postgresql.conf, restart).
CREATE PUBLICATION %s FOR TABLE %s
  WITH (publish_via_partition_root = true);
-- The role of the feed can read every table of the server by replication: protect its password.
CREATE ROLE cachesidecar_feed LOGIN REPLICATION PASSWORD '…';
-- To end the feed: stop the sidecars, or take it out of their settings. Then
-- SELECT pg_drop_replication_slot(%s);
-- DROP PUBLICATION %s;
`, identifier(f.cfg.Publication), strings.Join(tables, ", "), quoted(f.cfg.Slot), identifier(f.cfg.Publication))
}
