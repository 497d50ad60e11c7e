package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// leastVersion is the first PostgreSQL that sends messages of the log to pgoutput.
const leastVersion = 140000

// serverQuery asks what the server must be like.
const serverQuery = `SELECT current_setting('server_version_num'), current_setting('wal_level'),
	pg_is_in_recovery(), (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user),
	current_setting('max_slot_wal_keep_size'), current_setting('synchronous_standby_names'), current_user`

// publicationQuery asks for the publication. A changed operation or a dropped publication sends no
// change of its rows. xmin is another one after each ALTER PUBLICATION … SET.
const publicationQuery = `SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot, oid, xmin
	FROM pg_publication WHERE pubname = `

// tablesQuery asks for the mapped tables of the publication and their columns, and not for others, of which
// there may be thousands: what becomes of them changes no key. A table that leaves and comes back, an attached
// partition, and a rewritten column send no change of their rows. The file of a table tells of a rewriting, and
// the object that pg_depend names, of a membership that has begun again. The values of an enumeration are in no
// row: one with another name changes rows that are not sent. Later versions than 14 have rowfilter and attnames.
// The log has the rows of a partitioned table as its partitions say: each of them must be logged, and have the
// column in its identity.
const tablesQuery = `SELECT t.schemaname || '.' || t.tablename, c.relkind,
	c.relpersistence = 'p' AND coalesce(l.logged, true), c.relreplident,
	a.attname, a.attnum, a.atttypid, c.oid, c.relfilenode,
	CASE c.relkind WHEN 'p' THEN coalesce(l.named, true)
		ELSE c.relreplident = 'f' OR coalesce(i.indisreplident OR i.indisprimary, false) END, l.files,
	coalesce(to_jsonb(t) -> 'attnames' ? a.attname::text, true) AND a.attgenerated = '',
	to_jsonb(t) ->> 'rowfilter',
	(SELECT string_agg(d.objid::text, ',' ORDER BY d.objid) FROM pg_publication b
		JOIN pg_depend d ON d.refclassid = 'pg_publication'::regclass AND d.refobjid = b.oid
		JOIN pg_depend o ON o.classid = d.classid AND o.objid = d.objid
		WHERE b.pubname = t.pubname AND (o.refclassid = 'pg_class'::regclass AND o.refobjid = c.oid
			OR o.refclassid = 'pg_namespace'::regclass AND o.refobjid = n.oid)),
	(SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_type y
		JOIN pg_enum e ON e.enumtypid IN (y.oid, y.typelem, y.typbasetype) WHERE y.oid = a.atttypid)
	FROM pg_publication_tables t
	JOIN pg_namespace n ON n.nspname = t.schemaname
	JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
	JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
	LEFT JOIN pg_index i ON i.indrelid = c.oid AND a.attnum = ANY (i.indkey)
		AND CASE c.relreplident WHEN 'i' THEN i.indisreplident WHEN 'd' THEN i.indisprimary ELSE false END
	LEFT JOIN LATERAL (WITH RECURSIVE below AS (SELECT inhrelid FROM pg_inherits WHERE inhparent = c.oid
			UNION SELECT h.inhrelid FROM pg_inherits h JOIN below ON h.inhparent = below.inhrelid)
		SELECT string_agg(p.oid::text || '/' || p.relfilenode, ',' ORDER BY p.oid) AS files,
			bool_and(p.relpersistence = 'p') AS logged,
			bool_and(p.relreplident = 'f' OR EXISTS (SELECT FROM pg_index x
				JOIN pg_attribute b ON b.attrelid = p.oid AND b.attnum = ANY (x.indkey)
				WHERE x.indrelid = p.oid AND b.attname = a.attname AND CASE p.relreplident
					WHEN 'i' THEN x.indisreplident WHEN 'd' THEN x.indisprimary ELSE false END)
			) FILTER (WHERE p.relkind = 'r') AS named
		FROM below JOIN pg_class p ON p.oid = below.inhrelid) l ON true
	WHERE t.pubname = %s AND t.schemaname || '.' || t.tablename IN (%s) ORDER BY 1, 6, 10`

// seen is a table of the publication.
type seen struct {
	logged  bool
	filter  string          // rows outside of it are not sent
	columns map[string]bool // that are sent, by name: whether it is in the identity
}

// check asks the server whether the settings fit it. It returns a digest of what must stay the same
// while the stream goes on.
func (f *Feed) check(ctx context.Context, conn *pgconn.PgConn) (digest string, err error) {
	server, err := ask(ctx, conn, serverQuery)
	if err != nil {
		return "", err
	}
	publication, err := ask(ctx, conn, publicationQuery+quoted(f.cfg.Publication))
	if err != nil {
		return "", err
	}
	var names []string
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		names = append(names, quoted(name))
	}
	rows, err := ask(ctx, conn, fmt.Sprintf(tablesQuery, quoted(f.cfg.Publication), strings.Join(names, ", ")))
	if err != nil {
		return "", err
	}
	if len(server) != 1 || len(server[0]) != 7 {
		return "", errors.New("the server has answered in an unknown form")
	}
	var wrong settings.Problems
	f.checkServer(server[0], &wrong)
	if len(publication) == 0 {
		wrong.Addf("there is no publication %s: `cachesidecar changes sql` prints the statements that make it",
			f.cfg.Publication)
	} else if ops := publication[0][:4]; slices.Contains(ops, "f") {
		wrong.Addf("publication %s leaves out inserts, updates, deletes or truncations: have it publish all four",
			f.cfg.Publication)
	}
	f.checkTables(rows, len(publication) > 0 && publication[0][4] == "f", &wrong)
	if err := f.checkSpellings(ctx, conn, strings.Join(names, ", "), &wrong); err != nil {
		return "", err
	}
	var misfits settings.Problems
	for _, err := range settings.Each(wrong.Err()) {
		misfits.Addf("%w: %w", loader.ErrFeed, err)
	}
	if err := misfits.Err(); err != nil {
		return "", err
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q\n", publication)
	for _, row := range rows {
		fmt.Fprintf(h, "%q\n", row)
	}
	return string(h.Sum(nil)), nil
}

func (f *Feed) checkServer(row []string, wrong *settings.Problems) {
	if n, err := strconv.Atoi(row[0]); err != nil || n < leastVersion {
		wrong.Addf("the server has version %s: the feed needs PostgreSQL 14 or later", row[0])
	}
	if row[1] != "logical" {
		wrong.Addf("wal_level is %s: set it to logical in postgresql.conf, and restart the server", row[1])
	}
	if row[2] == "t" {
		wrong.Addf("the server is a standby: give the primary")
	}
	if row[3] != "t" {
		wrong.Addf("role %q may not replicate: ALTER ROLE %s REPLICATION", row[6], identifier(row[6]))
	}
	// A commit would wait for the feed, which waits until readers see the commit.
	if anyStandby.MatchString(row[5]) {
		wrong.Addf("synchronous_standby_names is %q, which takes the feed for a standby, so that commits hang: "+
			"name the standbys, without * and cachesidecar", row[5])
	}
}

// anyStandby matches a list of synchronous standbys that has the feed's application_name.
var anyStandby = regexp.MustCompile(`(?i)\*|(^|[\s,("])cachesidecar($|[\s,)"])`)

func (f *Feed) checkTables(rows [][]string, leaves bool, wrong *settings.Problems) {
	tables := map[string]*seen{}
	for _, r := range rows {
		t := tables[r[0]]
		if t == nil {
			t = &seen{logged: r[2] == "t", filter: r[12], columns: map[string]bool{}}
			tables[r[0]] = t
		}
		if r[11] == "t" {
			t.columns[r[4]] = t.columns[r[4]] || r[9] == "t"
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		t := tables[name]
		switch {
		case t == nil && leaves:
			wrong.Addf("table %s is not in publication %s: add it, or leave it out of tables; if it has partitions, "+
				"set publish_via_partition_root of the publication", name, f.cfg.Publication)
			continue
		case t == nil:
			wrong.Addf("table %s is not in publication %s: add it, or leave it out of tables", name, f.cfg.Publication)
			continue
		case !t.logged:
			wrong.Addf("table %s, or a partition of it, is unlogged or temporary: its changes are in no log", name)
		case t.filter != "":
			wrong.Addf("table %s has a row filter in publication %s, which hides changes: take the filter away",
				name, f.cfg.Publication)
		}
		for _, c := range f.tables[name].columns {
			identity, there := t.columns[c]
			switch {
			case !there:
				wrong.Addf("table %s has no column %s in the publication, which its key names: generated columns "+
					"are not there", name, c)
			case !identity:
				wrong.Addf("table %s: column %s of its key is outside of its replica identity, or of a partition's, "+
					"so that a deletion does not name it: ALTER TABLE … REPLICA IDENTITY FULL, or USING INDEX one "+
					"with the column", name, c)
			}
		}
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
	stream, err := f.connect(ctx, true) // which a pooler refuses
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close(ctx) }() // nothing is lost
	rows, err := ask(ctx, conn, serverQuery)
	if err != nil || len(rows) != 1 {
		return nil, err
	}
	_, left, err := f.left(ctx, conn)
	return append(f.warnings(rows[0]), left...), err
}

// SQL returns the statements that make the publication and a role for the feed.
func (f *Feed) SQL() string {
	var tables []string
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		schema, table, _ := strings.Cut(name, ".")
		tables = append(tables, identifier(schema)+"."+identifier(table))
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
