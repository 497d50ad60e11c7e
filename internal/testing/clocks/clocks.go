// Package clocks finds the tests that read the machine's clock.
//
// Input is the module in the working folder, through go list and the type checker. Output
// is a list in the test's log, and an error for each test that reads the clock without
// saying so by testenv.ReadsClock. Tests in virtual time, and waits of package testenv,
// are left out. It follows calls of functions by name, not through interfaces. It starts
// no goroutine, and only tests import it.
package clocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const (
	support = "github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	virtual = "github.com/cachesidecar/cachesidecar/internal/bubble.Test"
	tells   = support + ".ReadsClock"
	remedy  = "Use virtual time, an order or a count, or a wait of package testenv; " +
		"where it must be the clock, call testenv.ReadsClock"
)

// readings are the functions by which a test reads the clock.
var readings = []string{
	"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After", "time.AfterFunc",
	"time.NewTimer", "time.NewTicker", "time.Tick", "context.WithTimeout", "context.WithDeadline",
}

// Check fails for each test of the module in the working folder that reads the machine's
// clock without saying so, or says so and does not, and lists those that do.
func Check(t testing.TB) {
	t.Helper()
	functions, err := load()
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, name := range slices.Sorted(maps.Keys(functions)) {
		f := functions[name]
		if !f.test {
			continue
		}
		w := walk{functions: functions, seen: map[string]bool{}}
		w.visit(name)
		switch readers := slices.Sorted(slices.Values(w.readers)); {
		case len(w.told) > 0:
			listed++
			t.Logf("%s: %s", name, strings.Join(w.told, "; "))
		case !w.virtual && len(readers) > 0:
			t.Errorf("%s: %s reads the machine's clock: %s. %s", f.at, name, strings.Join(readers, ", "), remedy)
		}
	}
	t.Logf("%d tests read the clock", listed)
}

// function is what is known of a function of the tests.
type function struct {
	test     bool
	at       token.Position
	calls    map[string]bool
	readings map[string]bool
	told     []string // by calls of ReadsClock
}

// walk goes through all that a test calls.
type walk struct {
	functions map[string]*function
	seen      map[string]bool
	virtual   bool
	readers   []string
	told      []string
}

func (w *walk) visit(name string) {
	if name == virtual {
		w.virtual = true
	}
	f := w.functions[name]
	if f == nil || w.seen[name] {
		return
	}
	w.seen[name] = true
	w.told = append(w.told, f.told...)
	if len(f.readings) > 0 {
		by := strings.Join(slices.Sorted(maps.Keys(f.readings)), " and ")
		w.readers = append(w.readers, name[strings.LastIndex(name, "/")+1:]+" by "+by)
	}
	for call := range f.calls {
		w.visit(call)
	}
}

// pkg is what go list says of a package.
type pkg struct {
	Dir, ImportPath, Export string
	GoFiles                 []string
	ImportMap               map[string]string
	Module                  *struct{ Main bool }
}

// load returns the functions of the tests, and of the packages that only tests import, by
// their full names.
func load() (map[string]*function, error) {
	var failed strings.Builder
	const fields = "Dir,ImportPath,Export,GoFiles,ImportMap,Module"
	cmd := exec.Command("go", "list", "-export", "-deps", "-test", "-json="+fields, "./...")
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, &failed)
	}
	packages := map[string]*pkg{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		p := &pkg{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		packages[p.ImportPath] = p
	}
	functions := map[string]*function{}
	for path, p := range packages {
		if p.Module == nil || strings.HasSuffix(path, ".test") || strings.HasPrefix(path, support) ||
			!p.Module.Main && !forTests(p.Dir) {
			continue
		}
		if err := p.read(packages, functions); err != nil {
			return nil, err
		}
	}
	return functions, nil
}

func forTests(folder string) bool {
	return strings.Contains(folder, "/internal/testing/") ||
		strings.Contains(folder, "/internal/") && strings.HasSuffix(folder, "test")
}

// read adds the functions of p that belong to tests.
func (p *pkg) read(packages map[string]*pkg, functions map[string]*function) error {
	files := token.NewFileSet()
	var parsed []*ast.File
	tests := forTests(p.Dir)
	for _, name := range p.GoFiles {
		tests = tests || strings.HasSuffix(name, "_test.go")
		file, err := parser.ParseFile(files, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		parsed = append(parsed, file)
	}
	if !tests {
		return nil
	}
	exported := func(path string) (io.ReadCloser, error) {
		if actual := p.ImportMap[path]; actual != "" {
			path = actual
		}
		return os.Open(packages[path].Export)
	}
	info := &types.Info{
		Uses:  map[*ast.Ident]types.Object{},
		Defs:  map[*ast.Ident]types.Object{},
		Types: map[ast.Expr]types.TypeAndValue{},
	}
	path, _, _ := strings.Cut(p.ImportPath, " ")
	config := types.Config{Importer: importer.ForCompiler(files, "gc", exported)}
	if _, err := config.Check(path, files, parsed, info); err != nil {
		return err
	}
	for _, file := range parsed {
		for _, d := range file.Decls {
			d, ok := d.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			at := files.Position(d.Pos())
			if !strings.HasSuffix(at.Filename, "_test.go") && !forTests(p.Dir) {
				continue
			}
			f := &function{at: at, calls: map[string]bool{}, readings: map[string]bool{}}
			f.test = d.Recv == nil && strings.HasSuffix(at.Filename, "_test.go") &&
				strings.HasPrefix(d.Name.Name, "Test") && d.Name.Name != "TestMain"
			ast.Inspect(d.Body, func(n ast.Node) bool { return f.note(n, info) })
			functions[info.Defs[d.Name].(*types.Func).FullName()] = f
		}
	}
	return nil
}

// note takes what a node of the function's body says.
func (f *function) note(n ast.Node, info *types.Info) bool {
	switch n := n.(type) {
	case *ast.Ident:
		used, ok := info.Uses[n].(*types.Func)
		if !ok {
			break
		}
		if name := used.Origin().FullName(); slices.Contains(readings, name) {
			f.readings[name] = true
		} else {
			f.calls[name] = true
		}
	case *ast.CallExpr:
		of, ok := n.Fun.(*ast.SelectorExpr)
		if !ok {
			break
		}
		if used, ok := info.Uses[of.Sel].(*types.Func); ok && used.FullName() == tells {
			f.told = append(f.told, fmt.Sprintf("%s, within %s", value(info, n.Args[2]), types.ExprString(n.Args[1])))
		}
	}
	return true
}

func value(info *types.Info, e ast.Expr) string {
	if v := info.Types[e].Value; v != nil {
		return v.ExactString()
	}
	return types.ExprString(e)
}
