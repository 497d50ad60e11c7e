package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// table is the name of a table.
type table struct{ schema, name string }

// mapping is a table and the parts of the keys of its rows: texts, and columns between them.
type mapping struct {
	table     table
	as        string // its name in the settings
	namespace string
	texts     []string // one more than columns
	columns   []string
}

// column is the name of a column.
type column struct {
	table table
	name  string
}

var (
	inTable  = regexp.MustCompile(`^("(?:[^"]|"")+"|[^".][^.]*)\.("(?:[^"]|"")+"|[^".][^.]*)$`)
	inBraces = regexp.MustCompile(`\{([^{}]*)\}`)
)

// parseTable reads the name of a table: schema and name as they are in the catalog. One that has a dot, or begins
// with a quote, is quoted as in SQL.
func parseTable(text string) (t table, ok bool) {
	parts := inTable.FindStringSubmatch(text)
	if parts == nil {
		return t, false
	}
	unquote := func(part string) string {
		if !strings.HasPrefix(part, `"`) {
			return part
		}
		return strings.ReplaceAll(part[1:len(part)-1], `""`, `"`)
	}
	return table{unquote(parts[1]), unquote(parts[2])}, true
}

func newMapping(name string, t FeedTable) (*mapping, error) {
	var wrong settings.Problems
	id, ok := parseTable(name)
	if !ok {
		wrong.Add(errors.New(`give schema and name, such as public.users; a name with a dot goes in double quotes, ` +
			`"a.b".users`))
	}
	if !kv.ValidNamespace(t.Namespace) {
		wrong.Addf("namespace", "%q: give the name of a namespace", t.Namespace)
	}
	m := &mapping{table: id, as: name, namespace: t.Namespace}
	at := 0
	for _, i := range inBraces.FindAllStringSubmatchIndex(t.Key, -1) {
		m.texts = append(m.texts, t.Key[at:i[0]])
		m.columns = append(m.columns, t.Key[i[2]:i[3]])
		at = i[1]
	}
	m.texts = append(m.texts, t.Key[at:])
	if len(m.columns) == 0 || strings.ContainsAny(strings.Join(m.texts, ""), "{}") ||
		slices.Contains(m.columns, "") {
		wrong.Addf("key", "%q: give columns in braces, such as {id}", t.Key)
		return m, wrong.Err()
	}
	for i, name := range m.columns {
		if slices.Contains(m.columns[:i], name) {
			wrong.Addf("key", "%q: column %s stands there twice, and keys in which its texts differ are no row's: "+
				"give it once", t.Key, name)
		}
		if i > 0 && strings.Map(divider, m.texts[i]) == "" {
			wrong.Addf("key", "%q: nothing tells where %s ends and %s begins: give a text between them that has "+
				"more than letters and digits, such as {%s}:{%s}", t.Key, m.columns[i-1], name, m.columns[i-1], name)
		}
	}
	return m, wrong.Err()
}

// places returns where the columns of the key are among those of the table.
func (m *mapping) places(columns []string) (list []int, err error) {
	for _, c := range m.columns {
		i := slices.Index(columns, c)
		if i < 0 {
			return nil, fmt.Errorf("the key names column %q, which the publication does not have: %w",
				c, loader.ErrFeed)
		}
		list = append(list, i)
	}
	return list, nil
}

// key returns the key of a row.
func (m *mapping) key(values []string) string {
	var b strings.Builder
	for i, v := range values {
		b.WriteString(m.texts[i])
		b.WriteString(v)
	}
	b.WriteString(m.texts[len(values)])
	return b.String()
}

// column names a column of the table.
func (m *mapping) column(name string) column { return column{m.table, name} }

// composed reports whether the keys of a table are more than the text of a column.
func (m *mapping) composed() bool { return len(m.columns) > 1 || m.texts[0]+m.texts[1] != "" }

// dividers returns, for a class of a regular expression, what divides the keys of a table: of each text of the
// template the characters that are no letters or digits; its first one if it has none of them.
func (m *mapping) dividers() string {
	var b strings.Builder
	for _, text := range m.texts {
		of := strings.Map(divider, text)
		if first, size := utf8.DecodeRuneInString(text); of == "" && size > 0 {
			of = string(first)
		}
		for _, r := range of {
			if strings.ContainsRune(`\]^-[`, r) {
				b.WriteByte('\\')
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

// divider is a mapping of strings.Map that leaves the characters which are no letters or digits.
func divider(r rune) rune {
	if unicode.IsLetter(r) || unicode.IsDigit(r) {
		return -1
	}
	return r
}
