package cachesidecar

import (
	"cmp"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// logLine is a message that the program can log; "…" stands for what the message has of a variable.
type logLine struct{ level, message string }

// logCall says where a function that logs takes its level and its message; level is -1 if its name
// says the level.
type logCall struct{ level, message int }

// logCalls are the functions that log, by name. A test for a receiver's name keeps others of the
// same name out.
var logCalls = map[string]logCall{
	"Debug": {-1, 0}, "Info": {-1, 0}, "Warn": {-1, 0}, "Error": {-1, 0},
	"Log": {1, 2}, "Text": {1, 2}, "tell": {0, 1}, "log": {0, 1}, "LogLine": {0, 1},
}

// passedOn are the calls whose message or level is a variable, by file and expression, with what
// they log.
var passedOn = map[string][]logLine{
	"cmd/cachesidecar/run.go: m":               {{"warn", "$… is no setting, and it has no effect: …"}},
	"gossip/log.go: string(b)":                 {{"debug", "[DEBUG] memberlist: …"}},
	"internal/namespaces/warm.go: level":       {{"info", "warming has ended"}, {"warn", "warming has ended"}},
	"internal/origin/health.go: text":          nil, // healthWords are found
	"internal/origin/health.go: h.words.again": nil,
	"internal/logs/logs.go: t.level":           nil, // the callers of Text are found
	"internal/logs/ratelimit.go: t.of.level": {
		{"info", "… and … more like it in the last …: …"}, {"warn", "… and … more like it in the last …: …"},
		{"error", "… and … more like it in the last …: …"},
	},
}

// TestLogsPage checks that docs/LOGS.md has each message that the program can log, with its level,
// and no other.
func TestLogsPage(t *testing.T) {
	got, want := pageLines(t), sourceLines(t)
	if len(want) < 60 {
		t.Fatalf("%d messages found in the sources: the search is broken", len(want))
	}
	for _, l := range want {
		if !slices.Contains(got, l) {
			t.Errorf("docs/LOGS.md lacks %s %q", l.level, l.message)
		}
	}
	for _, l := range got {
		if !slices.Contains(want, l) {
			t.Errorf("docs/LOGS.md has %s %q, which is in no source", l.level, l.message)
		}
	}
}

var logRow = regexp.MustCompile("(?m)^\\| ([a-z, ]+) \\| `([^`]+)` \\| [^|]{8,} \\|$")

// pageLines returns the messages of docs/LOGS.md. A row may have several levels.
func pageLines(t *testing.T) (list []logLine) {
	t.Helper()
	page, err := os.ReadFile("docs/LOGS.md")
	testenv.Must(t, err)
	for _, m := range logRow.FindAllStringSubmatch(string(page), -1) {
		for level := range strings.SplitSeq(m[1], ", ") {
			l := logLine{level, m[2]}
			if slices.Contains(list, l) {
				t.Errorf("docs/LOGS.md has %v twice", l)
			}
			list = append(list, l)
		}
	}
	return list
}

// sourceLines returns the messages of all sources but the tests' and what serves tests.
func sourceLines(t *testing.T) (list []logLine) {
	t.Helper()
	others := []string{"benchmarks", "checks", "clients", "internal/testing/attacks", "internal/testing/faults", "internal/testing/simnet", ".git"}
	f := &logFinder{t: t, used: map[string]bool{}}
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && slices.Contains(others, path):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		return f.read(filepath.ToSlash(path))
	})
	testenv.Must(t, err)
	for key := range passedOn {
		if !f.used[key] {
			t.Errorf("passedOn has %q, which is in no source", key)
		}
	}
	slices.SortFunc(f.found, func(a, b logLine) int {
		return cmp.Or(strings.Compare(a.message, b.message), strings.Compare(a.level, b.level))
	})
	return slices.Compact(f.found)
}

// logFinder finds the messages in one file after the other.
type logFinder struct {
	t     *testing.T
	file  string
	found []logLine
	used  map[string]bool // the entries of passedOn that were met
}

func (f *logFinder) read(path string) error {
	tree, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	f.file = path
	ast.Inspect(tree, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			f.call(n)
		case *ast.CompositeLit:
			f.words(n)
		}
		return true
	})
	return nil
}

// words takes the messages of a healthWords: what failed, still fails, and succeeds again.
func (f *logFinder) words(n *ast.CompositeLit) {
	if id, ok := n.Type.(*ast.Ident); !ok || id.Name != "healthWords" {
		return
	}
	for i, level := range []string{"warn", "warn", "info"} {
		text, ok := message(n.Elts[i+1])
		if !ok {
			f.t.Errorf("%s: a message of healthWords is no text", f.file)
		}
		f.found = append(f.found, logLine{level, text})
	}
}

// logger matches what a method that logs is called on.
var logger = regexp.MustCompile(`(?i)(^|\.)(log|logger|logs|slog|c|ss|l)$`)

func (f *logFinder) call(n *ast.CallExpr) {
	sel, ok := n.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	at, ok := logCalls[sel.Sel.Name]
	on := dotted(sel.X)
	short := slices.Contains([]string{"log", "LogLine", "tell"}, sel.Sel.Name) // methods of c, ss and l, which have others too
	if !ok || !logger.MatchString(on) || (on == "c" || on == "ss" || on == "l") != short || len(n.Args) <= at.message {
		return
	}
	level := strings.ToLower(sel.Sel.Name)
	if at.level >= 0 {
		said, isLevel := strings.CutPrefix(dotted(n.Args[at.level]), "slog.Level")
		if !isLevel {
			f.passed(n.Args[at.level])
			return
		}
		level = strings.ToLower(said)
	}
	text, ok := message(n.Args[at.message])
	if !ok {
		f.passed(n.Args[at.message])
		return
	}
	f.found = append(f.found, logLine{level, text})
}

// passed takes what passedOn has for an expression.
func (f *logFinder) passed(e ast.Expr) {
	key := f.file + ": " + dotted(e)
	lines, ok := passedOn[key]
	if !ok {
		f.t.Errorf("%s: say in passedOn what it may be", key)
	}
	f.used[key] = true
	f.found = append(f.found, lines...)
}

// message returns a text of constants and variables; ok is false if nothing of it is constant.
func message(e ast.Expr) (text string, ok bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		text, err := strconv.Unquote(e.Value)
		return text, err == nil
	case *ast.BinaryExpr:
		left, first := message(e.X)
		right, second := message(e.Y)
		return left + right, first || second
	}
	return "…", false
}

// dotted returns an expression such as a.b.c, or f(x), as it is written.
func dotted(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return dotted(e.X) + "." + e.Sel.Name
	case *ast.CallExpr:
		args := make([]string, len(e.Args))
		for i, a := range e.Args {
			args[i] = dotted(a)
		}
		return dotted(e.Fun) + "(" + strings.Join(args, ", ") + ")"
	}
	return "?"
}
