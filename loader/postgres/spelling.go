package postgres

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

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
	digits  = `[0-9](?:_?[0-9])*`
	number  = `[\s\v]*[-+]?(?:0[xX](?:_?[0-9a-fA-F])+|0[oO](?:_?[0-7])+|0[bB](?:_?[01])+|` +
		`(?:` + digits + `\.?(?:` + digits + `)?|\.` + digits + `)(?:[eE][-+]?` + digits + `)?)[\s\v]*`
	nothing = `[^\x00-\x{10FFFF}]`
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
func (col keyColumn) spelling() spelling {
	s := spellings[col.base]
	m := col.modifier - 4
	switch scale := m & 0x7ff; {
	case col.enum:
		s = spelling{log: anyText}
	case !col.exact: // rows with equal texts are written as they came
		s = spelling{}
	case col.base == "bpchar" && m > 0 && m <= 1000: // with the blanks at its end
		s = spelling{log: fmt.Sprintf(`(?s:.{%d})`, m)}
	case col.base == "numeric" && m >= 0 && scale == 0:
		s = spelling{log: integer}
	case col.base == "numeric" && m >= 0 && scale <= maxScale:
		s = spelling{log: fmt.Sprintf(`(?:(?:0|-?[1-9][0-9]*)\.[0-9]{%d}|-0\.(?:%s))`, scale, notZero(scale))}
	}
	if s.any == "" {
		s.any = `(?s:.+)`
	}
	return s
}

// maxScale bounds the digits behind a point, since notZero grows with their square.
const maxScale = 30

// notZero returns a regular expression of the digits of a number that is not zero.
func notZero(digits int) string {
	var forms []string
	for i := range digits {
		forms = append(forms, fmt.Sprintf(`0{%d}[1-9][0-9]{%d}`, i, digits-1-i))
	}
	return strings.Join(forms, "|")
}

// columnsQuery asks for the types of the columns that keys name, below all domains.
const columnsQuery = `WITH RECURSIVE
	wanted(place, schema, name, col) AS (VALUES %s),
	below AS (SELECT w.place, w.col, a.attcollation AS collation,
			format_type(a.atttypid, a.atttypmod) AS shown, a.atttypid AS type, a.atttypmod AS modifier
		FROM wanted w JOIN pg_namespace n ON n.nspname = w.schema
		JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
		JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col AND a.attnum > 0 AND NOT a.attisdropped
	UNION ALL
		SELECT b.place, b.col, b.collation, b.shown, y.typbasetype, y.typtypmod
		FROM below b JOIN pg_type y ON y.oid = b.type AND y.typtype = 'd')
	SELECT b.place, b.col, b.shown,
		CASE WHEN y.typnamespace = 'pg_catalog'::regnamespace THEN y.typname ELSE '' END, y.typtype = 'e',
		coalesce(l.collisdeterministic, true), b.modifier
	FROM below b JOIN pg_type y ON y.oid = b.type AND y.typtype <> 'd'
	LEFT JOIN pg_collation l ON l.oid = b.collation`

// KeyForms tells the feed where it finds regular expressions that the keys of a namespace match: its
// key_pattern, and what its origin lets pass. A reload may change them. It is called before the feed is used;
// else their spelling is left to the caller.
func (f *Feed) KeyForms(of func(ctx context.Context, namespace string) ([]string, error)) {
	f.forms = of
}

// keyColumns returns the columns that keys name, by their names. wanted is
// that of catalogQuery.
func (f *Feed) keyColumns(ctx context.Context, conn *pgconn.PgConn, wanted string) (map[column]keyColumn, error) {
	rows, err := ask(ctx, conn, 7, fmt.Sprintf(columnsQuery, wanted))
	if err != nil {
		return nil, err
	}
	tables, columns := f.ordered(), map[column]keyColumn{}
	for _, r := range rows {
		m, err := placed(tables, r[0])
		if err != nil {
			return nil, err
		}
		modifier, err := strconv.Atoi(r[6])
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errUnknownForm, err)
		}
		columns[m.column(r[1])] = keyColumn{r[2], r[3], r[4] == "t", r[5] == "t", modifier}
	}
	return columns, nil
}

// placed returns the table of a place in wanted.
func placed(tables []*mapping, place string) (*mapping, error) {
	i, err := strconv.Atoi(place)
	if err != nil || i < 0 || i >= len(tables) {
		return nil, errUnknownForm
	}
	return tables[i], nil
}

// formsTime bounds the question which keys a namespace takes. The feed does not go on meanwhile.
const formsTime = time.Second

// checkSpellings refuses keys that leave several spellings of a row. The columns are those of a catalog with
// that digest. A namespace whose origin this host cannot ask waits for the next look.
func (f *Feed) checkSpellings(
	ctx context.Context, digest string, columns map[column]keyColumn, wrong *settings.Problems,
) {
	forms, all := map[string][]string{}, true
	for _, m := range f.tables {
		if _, asked := forms[m.namespace]; asked || f.forms == nil {
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, formsTime)
		list, err := f.forms(ctx, m.namespace)
		cancel()
		if forms[m.namespace] = append([]string{}, list...); err != nil {
			forms[m.namespace], all = nil, false
		}
	}
	state := fmt.Sprintf("%q %q", digest, forms)
	if last, ok := f.spelled.Load().(string); ok && last == state {
		return
	}
	before := len(settings.Each(wrong.Err()))
	for _, m := range f.ordered() {
		if list := forms[m.namespace]; list != nil || f.forms == nil {
			wrong.Add(f.checkSpelling(m, columns, list))
		}
	}
	if all && len(settings.Each(wrong.Err())) == before {
		f.spelled.Store(state)
	}
}

// checkSpelling refuses the mapping of a table whose keys may have several spellings.
func (f *Feed) checkSpelling(m *mapping, columns map[column]keyColumn, forms []string) error {
	var loose []string
	if m.composed() {
		loose = append(loose, "its key is made of more than a column")
	}
	for _, name := range m.columns {
		c, there := columns[m.column(name)]
		switch s := c.spelling(); {
		case !there: // another check says so
			return nil
		case s.log == "", m.composed() && c.base == "name":
			return fmt.Errorf("table %s: column %s of its key is %s, and SQL finds a row by other texts than the "+
				"log's, which are in no one form that a key_pattern could ask for: give a column of text, integer "+
				"or uuid",
				m.as, name, c.described())
		case s.log != anyText:
			loose = append(loose, fmt.Sprintf("column %s of its key is %s", name, c.described()))
		}
	}
	if len(loose) == 0 || f.forms == nil {
		return nil
	}
	about := fmt.Sprintf("table %s: %s", m.as, strings.Join(loose, ", "))
	any, log := m.spellings(columns)
	key, found, err := outside(append(slices.Clone(forms), any, f.logged(m, columns))...)
	switch {
	case err != nil:
		return fmt.Errorf("%s: the key_pattern of namespace %s: %w. %s", about, m.namespace, err, f.remedy(m, columns))
	case found:
		return fmt.Errorf("%s: SQL finds a row by other texts than the log's, whose keys no feed deletes, "+
			"and namespace %s lets such a key pass: %q. %s", about, m.namespace, key, f.remedy(m, columns))
	}
	_, some, err := outside(append(slices.Clone(forms), log, nothing)...)
	switch {
	case err != nil:
		return fmt.Errorf("%s: the key_pattern of namespace %s: %w", about, m.namespace, err)
	case some:
		return nil
	}
	key, _, _ = outside(log, nothing)
	return fmt.Errorf("%s: a row's key in the log, such as %q, is none that the key_pattern of namespace %s lets "+
		"pass, so that no key would ever be deleted: give the template of the keys that apps use",
		about, key, m.namespace)
}

// logged returns a regular expression of the keys that the log has of a table. If they are composed it has those
// of the namespace's other tables too, which SQL takes for no key of this one: but not those of a table of any texts.
func (f *Feed) logged(m *mapping, columns map[column]keyColumn) string {
	_, log := m.spellings(columns)
	list := []string{log}
	for _, o := range f.ordered() {
		if o == m || o.namespace != m.namespace || !m.composed() {
			continue
		}
		if _, log := o.spellings(columns); log != anyText && log != "" {
			list = append(list, log)
		}
	}
	return strings.Join(list, "|")
}

// remedy says which key_pattern suits all tables of a namespace, or that none does.
func (f *Feed) remedy(m *mapping, columns map[column]keyColumn) string {
	var forms []string
	var tables []*mapping
	for _, o := range f.ordered() {
		if o.namespace == m.namespace {
			_, log := o.spellings(columns)
			forms, tables = append(forms, log), append(tables, o)
		}
	}
	slices.Sort(forms)
	pattern := strings.Join(slices.Compact(forms), "|")
	for _, o := range tables {
		any, _ := o.spellings(columns)
		if key, found, err := outside(pattern, any, f.logged(o, columns)); found && err == nil {
			return fmt.Sprintf("Give each table of %s a namespace of its own: no key_pattern suits all of them, "+
				"since the key %q would be one of %s in another spelling", m.namespace, key, o.as)
		}
	}
	return "Give it a key_pattern that leaves the log's spelling: key_pattern: " + quoted(pattern)
}

// described names the type of a column for people.
func (col keyColumn) described() string {
	if !col.exact {
		return col.shown + " with a collation that is not deterministic"
	}
	return col.shown
}

// spellings returns regular expressions of keys: of all by which SQL may find a row, and of those that the log
// writes. A query may take any text apart, and leave out of account what is around the columns, or what is behind
// a second text that stands between two of them. So no text of a column may have what a query can divide it by.
func (m *mapping) spellings(columns map[column]keyColumn) (any, log string) {
	if !m.composed() {
		s := columns[m.column(m.columns[0])].spelling()
		return s.any, s.log
	}
	barred := m.dividers()
	var b strings.Builder
	for i, name := range m.columns {
		b.WriteString(regexp.QuoteMeta(m.texts[i]))
		of := columns[m.column(name)].spelling().log
		if of == "" { // another check says so
			return `(?s:.+)`, ""
		}
		b.WriteString(strings.ReplaceAll(of, `(?s:.`, `(?:[^`+barred+`]`))
	}
	b.WriteString(regexp.QuoteMeta(m.texts[len(m.columns)]))
	return `(?s:.+)`, b.String()
}
