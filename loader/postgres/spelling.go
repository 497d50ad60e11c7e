package postgres

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgtype"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// A feed deletes the key with the texts that the log has of a row's columns. SQL finds the row by other texts
// too, if its type takes them for the same value: 042 for 42. What was loaded by such a key is never deleted, so
// that the keys of the namespace must have one spelling: the log's.

// spelling is how the values of a type are written.
type spelling struct {
	// log matches the texts that the log may have, and of each value that one only. Empty: no expression
	// does, since rows with equal values may have different texts.
	log string
	// any matches, beside others perhaps, all texts that SQL takes for a value; those alone must be kept out.
	any string
}

const (
	anyText = `(?s:.*)`
	day     = `[1-9][0-9]{3}-[01][0-9]-[0-3][0-9]`
	clock   = `(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{0,5}[1-9])?`
	octet   = `(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	integer = `(?:0|-?[1-9][0-9]*)`
	number  = `[\s\v]*[-+]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|[0-9](?:_?[0-9])*)[\s\v]*`
)

// spellings are the spellings of types. The walsender's settings make one text of each value (setLogTexts).
var spellings = map[string]spelling{
	"text": {anyText, anyText}, "varchar": {anyText, anyText},
	"name": {`[\x01-\x7F]{0,63}`, anyText}, // a longer one is cut off
	"int2": {integer, number}, "int4": {integer, number}, "int8": {integer, number},
	"oid": {`(?:0|[1-9][0-9]*)`, number}, // -1 would be the last
	"uuid": {
		`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`, `\{?[0-9a-fA-F]{4}(?:-?[0-9a-fA-F]{4}){7}\}?`,
	},
	"bool":        {log: `[tf]`},
	"date":        {log: day},
	"time":        {log: clock},
	"timestamp":   {log: day + ` ` + clock},
	"timestamptz": {log: day + ` ` + clock + `\+00`},
	"inet":        {log: octet + `(?:\.` + octet + `){3}`}, // without a network; IPv6 has too many forms
	"macaddr":     {log: `[0-9a-f]{2}(?::[0-9a-f]{2}){5}`},
	"macaddr8":    {log: `[0-9a-f]{2}(?::[0-9a-f]{2}){7}`},
	"varbit":      {log: `[01]+`},
}

// written are the texts that the types of $1 have in the log, by which an origin's keys are checked if a feed
// deletes them. Of numbers with a scale and of char(n) the type of $1 does not tell the text.
var written = map[uint32]*regexp.Regexp{}

func init() {
	for oid, name := range map[uint32]string{
		pgtype.Int2OID: "int2", pgtype.Int4OID: "int4", pgtype.Int8OID: "int8", pgtype.OIDOID: "oid",
		pgtype.UUIDOID: "uuid", pgtype.BoolOID: "bool", pgtype.NameOID: "name", pgtype.DateOID: "date",
		pgtype.TimeOID: "time", pgtype.TimestampOID: "timestamp", pgtype.TimestamptzOID: "timestamptz",
		pgtype.MacaddrOID: "macaddr", pgtype.Macaddr8OID: "macaddr8", pgtype.VarbitOID: "varbit",
	} {
		written[oid] = regexp.MustCompile(`\A(?:` + spellings[name].log + `)\z`)
	}
}

// keyColumn is a column as pg_attribute and pg_type describe it.
type keyColumn struct {
	shown    string // the type, with the name that people know
	base     string // the type below all domains; empty: it is none of PostgreSQL's own
	enum     bool
	exact    bool // its collation takes other texts for others
	modifier int  // of the base type; -1: none
}

// spelling returns how the values of a column are written.
func (c keyColumn) spelling() spelling {
	s := spellings[c.base]
	m := c.modifier - 4
	switch scale := m & 0x7ff; {
	case c.enum:
		s = spelling{log: anyText}
	case !c.exact: // rows with equal texts are written as they came
		s = spelling{}
	case c.base == "bpchar" && m > 0 && m <= 1000: // with the blanks at its end
		s = spelling{log: fmt.Sprintf(`(?s:.{%d})`, m)}
	case c.base == "numeric" && m >= 0 && scale == 0:
		s = spelling{log: integer}
	case c.base == "numeric" && m >= 0 && scale < 1000:
		s = spelling{log: fmt.Sprintf(`(?:0|-?[1-9][0-9]*)\.[0-9]{%d}`, scale)}
	}
	if s.any == "" {
		s.any = `(?s:.+)`
	}
	return s
}

// columnsQuery asks for the types of the mapped tables' columns, below all domains.
const columnsQuery = `WITH RECURSIVE below AS (
		SELECT n.nspname || '.' || c.relname AS name, a.attname, a.attcollation,
			format_type(a.atttypid, a.atttypmod) AS shown, a.atttypid AS type, a.atttypmod AS modifier
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		WHERE n.nspname || '.' || c.relname IN (%s)
	UNION ALL
		SELECT b.name, b.attname, b.attcollation, b.shown, y.typbasetype, y.typtypmod
		FROM below b JOIN pg_type y ON y.oid = b.type AND y.typtype = 'd')
	SELECT b.name, b.attname, b.shown,
		CASE WHEN y.typnamespace = 'pg_catalog'::regnamespace THEN y.typname ELSE '' END, y.typtype = 'e',
		coalesce(l.collisdeterministic, true), b.modifier
	FROM below b JOIN pg_type y ON y.oid = b.type AND y.typtype <> 'd'
	LEFT JOIN pg_collation l ON l.oid = b.attcollation ORDER BY 1, 2`

// KeyForms tells the feed where it finds regular expressions that the keys of a namespace match: its
// key_pattern, and what its origin lets pass. A reload may change them. It is called before the feed is used;
// else their spelling is left to the caller.
func (f *Feed) KeyForms(of func(ctx context.Context, namespace string) ([]string, error)) {
	f.forms = of
}

// checkSpellings refuses keys that leave several spellings of a row.
func (f *Feed) checkSpellings(ctx context.Context, conn *pgconn.PgConn, names string, wrong *settings.Problems) error {
	rows, err := ask(ctx, conn, fmt.Sprintf(columnsQuery, names))
	if err != nil {
		return err
	}
	columns := map[string]map[string]keyColumn{}
	for _, r := range rows {
		if columns[r[0]] == nil {
			columns[r[0]] = map[string]keyColumn{}
		}
		modifier, err := strconv.Atoi(r[6])
		if err != nil {
			return fmt.Errorf("the server has answered in an unknown form: %w", err)
		}
		columns[r[0]][r[1]] = keyColumn{r[2], r[3], r[4] == "t", r[5] == "t", modifier}
	}
	forms := map[string][]string{}
	for _, m := range f.tables {
		if f.forms == nil || forms[m.namespace] != nil {
			continue
		}
		if forms[m.namespace], err = f.forms(ctx, m.namespace); err != nil {
			return err
		}
	}
	state := fmt.Sprintf("%q %q", rows, forms)
	if last, ok := f.spelled.Load().(string); ok && last == state {
		return nil
	}
	before := len(settings.Each(wrong.Err()))
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		wrong.Add(f.checkSpelling(name, columns, forms[f.tables[name].namespace]))
	}
	if len(settings.Each(wrong.Err())) == before {
		f.spelled.Store(state)
	}
	return nil
}

// checkSpelling refuses the mapping of a table whose keys may have several spellings.
func (f *Feed) checkSpelling(name string, columns map[string]map[string]keyColumn, forms []string) error {
	m := f.tables[name]
	var loose []string
	for _, column := range m.columns {
		c, there := columns[name][column]
		switch s := c.spelling(); {
		case !there: // another check says so
			return nil
		case s.log == "":
			return fmt.Errorf("table %s: column %s of its key is %s, and SQL finds a row by other texts than the "+
				"log's, which are in no one form that a key_pattern could ask for: give a column of text, integer "+
				"or uuid",
				name, column, c.described())
		case s.log != anyText:
			loose = append(loose, fmt.Sprintf("column %s of its key is %s", column, c.described()))
		}
	}
	if len(loose) == 0 || f.forms == nil {
		return nil
	}
	form := func(part func(spelling) string) string {
		return m.expression(func(c string) string { return part(columns[name][c].spelling()) })
	}
	key, found, err := outside(append(slices.Clone(forms),
		form(func(s spelling) string { return s.any }), form(func(s spelling) string { return s.log }))...)
	switch {
	case err != nil:
		return fmt.Errorf("table %s: %s: the key_pattern of namespace %s: %w, such as %s",
			name, strings.Join(loose, ", "), m.namespace, err, f.proposal(m.namespace, columns))
	case found:
		return fmt.Errorf("table %s: %s: SQL finds a row by other texts than the log's, whose keys no feed deletes, "+
			"and namespace %s lets such a key pass: %q. Give it a key_pattern that leaves the log's spelling: %s",
			name, strings.Join(loose, ", "), m.namespace, key, f.proposal(m.namespace, columns))
	}
	return nil
}

// described names the type of a column for people.
func (c keyColumn) described() string {
	if !c.exact {
		return c.shown + " with a collation that is not deterministic"
	}
	return c.shown
}

// proposal returns the line of a key_pattern that suits all tables of a namespace.
func (f *Feed) proposal(namespace string, columns map[string]map[string]keyColumn) string {
	var forms []string
	for _, name := range slices.Sorted(maps.Keys(f.tables)) {
		if m := f.tables[name]; m.namespace == namespace {
			forms = append(forms, m.expression(func(c string) string { return columns[name][c].spelling().log }))
		}
	}
	slices.Sort(forms)
	return "key_pattern: " + quoted(strings.Join(slices.Compact(forms), "|"))
}

// expression returns a regular expression of keys from those of the columns.
func (m *mapping) expression(of func(column string) string) string {
	var b strings.Builder
	for i, c := range m.columns {
		b.WriteString(regexp.QuoteMeta(m.texts[i]))
		b.WriteString(of(c))
	}
	b.WriteString(regexp.QuoteMeta(m.texts[len(m.columns)]))
	return b.String()
}
