package configfile

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

const module = "github.com/cachesidecar/cachesidecar"

// configRow is the row of a setting in a table of docs/CONFIG.md.
type configRow struct {
	key, form, def, bounds, meaning string

	restart   bool // a reload does not change it
	namespace bool // it is a setting of a namespace
}

// configComments has the comments of a package's structs, by the type and the field.
type configComments map[[2]string]string

// commentsOf reads the comments of the package that declares a type.
func commentsOf(t *testing.T, typ reflect.Type) configComments {
	t.Helper()
	dir := filepath.Join("..", "..", strings.TrimPrefix(typ.PkgPath(), module))
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: no files: %v", typ.PkgPath(), err)
	}
	all := configComments{}
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments|parser.SkipObjectResolution)
		testenv.Must(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			decl, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := decl.Type.(*ast.StructType); ok {
				for _, field := range s.Fields.List {
					for _, name := range field.Names {
						all[[2]string{decl.Name.Name, name.Name}] = strings.Join(strings.Fields(field.Doc.Text()), " ")
					}
				}
			}
			return false
		})
	}
	return all
}

// configRowsOf returns the rows of the settings of a struct, in the order of its fields.
// prefix stands before their names. names has the settings' names around the struct, and
// restart whether these need a restart.
func configRowsOf(
	t *testing.T, typ reflect.Type, prefix string, names map[string]string, restart bool,
) (rows []configRow) {
	t.Helper()
	comments := commentsOf(t, typ)
	names = withNames(names, typ)
	for i := range typ.NumField() {
		f := typ.Field(i)
		key, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		restart := restart && f.Tag.Get("reload") != "yes" || f.Tag.Get("reload") == "restart"
		switch within := inner(f.Type); {
		case options == "inline":
			rows = append(rows, configRowsOf(t, f.Type, prefix, names, restart)...)
		case key == "" || key == "-":
		case f.Type == reflect.TypeFor[map[string]Namespace]():
			for _, r := range configRowsOf(t, f.Type.Elem(), "", names, false) {
				r.namespace = true
				rows = append(rows, r)
			}
		case f.Type == reflect.TypeFor[map[string]Feed]():
			rows = append(rows, configRowsOf(t, f.Type.Elem(), key+".", names, true)...)
		default:
			// A part that is always there has no row of its own, and a kind of origin has a table.
			if typ != reflect.TypeFor[Origin]() && typ != reflect.TypeFor[Feed]() && f.Type.Kind() != reflect.Struct {
				comment := comments[[2]string{typ.Name(), f.Name}]
				if comment == "" {
					t.Errorf("%s.%s has no comment", typ, f.Name)
				}
				r := rowOf(f, comment, names)
				r.key, r.restart = prefix+key, restart
				rows = append(rows, r)
			}
			if within.Kind() == reflect.Struct {
				rows = append(rows, configRowsOf(t, within, prefix+key+".", names, restart)...)
			}
		}
	}
	return rows
}

// withNames returns the names of settings by the names of Go fields: those of a struct,
// and those of the structs around it.
func withNames(names map[string]string, typ reflect.Type) map[string]string {
	all := map[string]string{}
	for goName, name := range names {
		all[goName] = name
	}
	for _, f := range reflect.VisibleFields(typ) {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && name != "-" {
			all[f.Name] = name
		}
	}
	return all
}

// rowOf makes a row from a field and its comment. The sentences that begin with "Form:",
// "Default:", "Required" and "Bounds:" give the cells of that name; the first one of the
// others gives the meaning.
func rowOf(f reflect.StructField, comment string, names map[string]string) configRow {
	row := configRow{form: forms[inner(f.Type)]}
	if inner(f.Type).Kind() == reflect.Bool {
		row.def = "`false`"
	}
	for _, s := range sentences(comment) {
		text := cell(s, f.Name, names)
		switch {
		case strings.HasPrefix(s, "Form: "):
			row.form = strings.TrimPrefix(text, "Form: ")
		case strings.HasPrefix(s, "Default: "):
			row.def = strings.TrimPrefix(text, "Default: ")
		case strings.HasPrefix(s, "Required"):
			row.def = "r" + text[1:]
		case strings.HasPrefix(s, "Bounds: "):
			row.bounds = strings.TrimPrefix(text, "Bounds: ")
		case row.meaning == "":
			row.meaning = text
		}
	}
	return row
}

// forms say how the values of a type are written, unless a comment does.
var forms = map[reflect.Type]string{
	reflect.TypeFor[bool]():                 "`true` or `false`",
	reflect.TypeFor[string]():               "text",
	reflect.TypeFor[int]():                  "number",
	reflect.TypeFor[uint32]():               "number",
	reflect.TypeFor[float64]():              "number",
	reflect.TypeFor[[]string]():             "list",
	reflect.TypeFor[[]int]():                "list of numbers",
	reflect.TypeFor[map[string]string]():    "names with values",
	reflect.TypeFor[time.Duration]():        "time",
	reflect.TypeFor[sidecar.Size]():         "size",
	reflect.TypeFor[sidecar.Percent]():      "percentage",
	reflect.TypeFor[sidecar.FileMode]():     "octal permission bits",
	reflect.TypeFor[sidecar.ExistingKeys](): "map",
	reflect.TypeFor[sidecar.Warm]():         "map",
}

// sentences divides a comment into sentences without their points.
func sentences(comment string) []string {
	marked := sentenceEnd.ReplaceAllString(comment, "$1\n$2")
	return strings.Split(strings.TrimSuffix(marked, "."), "\n")
}

var sentenceEnd = regexp.MustCompile(`([^.])\. ([A-Z])`)

// cell makes the text of a cell from a sentence of the comment of a Go field.
func cell(s, field string, names map[string]string) string {
	if rest, ok := strings.CutPrefix(s, field+" "); ok {
		for _, verb := range []string{"is ", "are ", "says "} {
			rest = strings.TrimPrefix(rest, verb)
		}
		s = strings.ToUpper(rest[:1]) + rest[1:]
	}
	first := true
	s = goWord.ReplaceAllStringFunc(s, func(w string) string {
		begins := first
		first = false
		if name, ok := names[w]; ok && !begins && w != field {
			return "`" + name + "`"
		}
		return w
	})
	s = quoted.ReplaceAllString(s, "`$1`")
	parts := strings.Split(s, "`")
	for i := 0; i < len(parts); i += 2 { // outside of code
		parts[i] = literal.ReplaceAllString(parts[i], "$1`$2`$3")
	}
	return strings.ReplaceAll(strings.Join(parts, "`"), "|", "\\|")
}

// What is written as code in a cell: names of Go fields, after their replacement; texts in
// quotes; numbers with their units, lists, addresses, paths and names of settings.
var (
	goWord  = regexp.MustCompile(`[A-Za-z0-9]+`)
	quoted  = regexp.MustCompile(`"([^"]*)"`)
	literal = regexp.MustCompile(`(^|[ (])(\[[0-9, ]+\]|[0-9][0-9.:e]*(?:[KMGT]?i?B|ms|s|m|h)?|[$/][A-Za-z_][A-Za-z0-9_$/-]*|[a-z]+_[a-z_]+)($|[ ,;:)])`)
)

// flag reports whether the setting can be given as a flag of run.
func (r configRow) flag() bool { return !r.namespace && settingFlags[r.key] != flagHelp{} }

// line returns the row as a line of Markdown.
func (r configRow) line() string {
	cells := []string{"`" + r.key + "`", r.form, r.def, r.bounds}
	reload := "yes"
	if r.restart {
		reload = ""
	}
	return "| " + strings.Join(append(cells, reload, r.meaning), " | ") + " |"
}

// configHead is the head of the tables.
const configHead = "| key | form | default | bounds | reload | meaning |\n|---|---|---|---|---|---|"

// configTable matches a table of docs/CONFIG.md after the comment that says which settings
// it has: "flags of run"; or names, such as "access tokens"; or all of a part, such as
// "limits.*".
var configTable = regexp.MustCompile(`<!-- settings( of a namespace|): ([a-z_.* ]+) -->\n\n(?:\|.*\n)*`)

// TestGoldenConfigDoc checks that the tables of docs/CONFIG.md are made from the structs
// of the settings and from the comments of their fields. With -update it writes them.
func TestGoldenConfigDoc(t *testing.T) {
	testenv.Takes(t, time.Second)
	rows := configRowsOf(t, reflect.TypeFor[File](), "", nil, true)
	told := map[configRow]bool{}
	doc := readDoc(t, "CONFIG.md")
	got := configTable.ReplaceAllStringFunc(doc, func(table string) string {
		m := configTable.FindStringSubmatch(table)
		list := strings.Fields(m[2])
		prefix, isPart := strings.CutSuffix(m[2], "*")
		flags := m[2] == "flags of run"
		lines := []string{configHead}
		inOrder := slices.Clone(rows)
		slices.SortStableFunc(inOrder, func(a, b configRow) int { return slices.Index(list, a.key) - slices.Index(list, b.key) })
		for _, r := range inOrder {
			within := slices.Contains(list, r.key) || isPart && strings.HasPrefix(r.key, prefix)
			if flags && r.flag() || !flags && within && r.namespace == (m[1] != "") {
				lines = append(lines, r.line())
				told[r] = true
			}
		}
		comment, _, _ := strings.Cut(table, "\n")
		return comment + "\n\n" + strings.Join(lines, "\n") + "\n"
	})
	for _, r := range rows {
		if !told[r] {
			t.Errorf("no table has %s", r.key)
		}
	}
	if *update {
		testenv.Must(t, os.WriteFile(filepath.Join("..", "..", "docs", "CONFIG.md"), []byte(got), 0o644))
		return
	}
	if got != doc {
		t.Error("the tables of docs/CONFIG.md are not those of the settings: make golden writes them anew")
	}
}
