// Package clocks finds the tests that read the machine's clock.
//
// Input is the module in the working folder, through go list and the type checker. Output
// is a list in the test's log, and an error for each test that reads the clock without
// saying so by testenv.ReadsClock. What a test does in virtual time, and waits of package
// testenv, are left out. Functions in tables (literals of structs and the like, and
// variables of packages) count unless the test enters virtual time at all. Calls are
// followed by name, not through interfaces. It starts no goroutine, and only tests import it.
package clocks

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
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
	"time"
)

const (
	support = "github.com/cachesidecar/cachesidecar/internal/testing/testenv"
	virtual = "github.com/cachesidecar/cachesidecar/internal/testing/bubble.Test"
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
// clock without saying so, and lists those that say so.
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
		for i := 0; i < len(w.tables) && !w.virtual; i++ {
			w.take(w.tables[i])
		}
		switch readers := slices.Sorted(slices.Values(w.readers)); {
		case len(w.told) > 0:
			listed++
			t.Logf("%s: %s", name, strings.Join(w.told, "; "))
		case len(readers) > 0:
			t.Errorf("%s: %s reads the machine's clock: %s. %s", f.at, name, strings.Join(readers, ", "), remedy)
		}
	}
	t.Logf("%d tests read the clock", listed)
}

// function is what is known of a function of the tests, of a variable's value, or of the
// tables in either.
type function struct {
	test     bool
	enters   bool // it calls functions that it is given in virtual time
	at       token.Position
	node     ast.Node
	given    map[types.Object]bool // parameters
	info     *types.Info
	name     string
	calls    map[string]bool
	readings map[string]bool
	told     []string  // by calls of ReadsClock
	table    *function // what is in its tables; nil in a table
}

// walk goes through all that a test calls.
type walk struct {
	functions map[string]*function
	seen      map[string]bool
	virtual   bool // it enters virtual time
	tables    []*function
	readers   []string
	told      []string
}

func (w *walk) visit(name string) {
	w.virtual = w.virtual || name == virtual
	if f := w.functions[name]; f != nil && !w.seen[name] {
		w.seen[name] = true
		w.take(f)
	}
}

func (w *walk) take(f *function) {
	w.told = append(w.told, f.told...)
	if len(f.readings) > 0 {
		by := strings.Join(slices.Sorted(maps.Keys(f.readings)), " and ")
		w.readers = append(w.readers, f.name[strings.LastIndex(f.name, "/")+1:]+" by "+by)
	}
	for call := range f.calls {
		w.visit(call)
	}
	if f.table != nil {
		w.tables = append(w.tables, f.table)
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
			!p.Module.Main && !forTests(path) {
			continue
		}
		if _, err := os.ReadDir(p.Dir); err != nil { // a new file ends what go test has cached
			return nil, err
		}
		if err := p.read(packages, functions); err != nil {
			return nil, err
		}
	}
	for again := true; again; {
		again = false
		for _, f := range functions {
			if !f.enters && f.entersNow(functions) {
				f.enters, again = true, true
			}
		}
	}
	for _, f := range functions {
		ast.Inspect(f.node, func(n ast.Node) bool { return f.note(n, functions) })
	}
	return functions, nil
}

// forTests reports whether only tests import a package. A network in memory is no test: it waits as a
// real one does, and mostly in virtual time.
func forTests(path string) bool {
	path, _, _ = strings.Cut(path, " ")
	if strings.HasSuffix(path, "/internal/testing/simnet") {
		return false
	}
	return strings.Contains(path, "/internal/testing/") || strings.Contains(path, "/cachesidecar/checks/") ||
		strings.Contains(path, "/internal/") && strings.HasSuffix(path, "test")
}

// read adds the functions of p that belong to tests.
func (p *pkg) read(packages map[string]*pkg, functions map[string]*function) error {
	files := token.NewFileSet()
	var parsed []*ast.File
	tests := forTests(p.ImportPath)
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
		at := files.Position(file.Pos())
		if !strings.HasSuffix(at.Filename, "_test.go") && !forTests(path) {
			continue
		}
		for _, d := range file.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				p.function(d, info, files.Position(d.Pos()), functions)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					if spec, ok := spec.(*ast.ValueSpec); ok {
						for _, name := range spec.Names {
							full := path + "." + name.Name
							functions[full] = newFunction(full, spec, info)
						}
					}
				}
			}
		}
	}
	return nil
}

func (p *pkg) function(d *ast.FuncDecl, info *types.Info, at token.Position, functions map[string]*function) {
	if d.Body == nil {
		return
	}
	of := info.Defs[d.Name].(*types.Func)
	f := newFunction(of.FullName(), d.Body, info)
	f.at = at
	f.test = d.Recv == nil && strings.HasSuffix(at.Filename, "_test.go") &&
		(strings.HasPrefix(d.Name.Name, "Test") && d.Name.Name != "TestMain" || strings.HasPrefix(d.Name.Name, "Fuzz"))
	for v := range of.Signature().Params().Variables() {
		if isFunction(v.Type()) {
			f.given[v] = true
		}
	}
	functions[f.name] = f
}

func newFunction(name string, node ast.Node, info *types.Info) *function {
	f := &function{name: name, node: node, info: info, given: map[types.Object]bool{}}
	f.calls, f.readings = map[string]bool{}, map[string]bool{}
	f.table = &function{name: name, info: info, calls: map[string]bool{}, readings: map[string]bool{}}
	return f
}

func isFunction(t types.Type) bool {
	_, ok := t.Underlying().(*types.Signature)
	return ok
}

// used returns the full name of the function or the package's variable that an identifier
// stands for, or "".
func (f *function) used(id *ast.Ident) string {
	switch o := f.info.Uses[id].(type) {
	case *types.Func:
		return o.Origin().FullName()
	case *types.Var:
		if o.Pkg() != nil && o.Parent() == o.Pkg().Scope() {
			return o.Pkg().Path() + "." + o.Name()
		}
	}
	return ""
}

// called returns the full name of the function that is called, or "".
func (f *function) called(n *ast.CallExpr) string {
	switch of := ast.Unparen(n.Fun).(type) {
	case *ast.Ident:
		return f.used(of)
	case *ast.SelectorExpr:
		return f.used(of.Sel)
	}
	return ""
}

// inVirtualTime returns the arguments of a call that are called in virtual time.
func (f *function) inVirtualTime(n *ast.CallExpr, functions map[string]*function) (args []ast.Expr) {
	name := f.called(n)
	if of := functions[name]; name == virtual || of != nil && of.enters {
		for _, a := range n.Args {
			if isFunction(f.info.Types[a].Type) {
				args = append(args, a)
			}
		}
	}
	return args
}

// entersNow reports whether the function calls one that it is given in virtual time.
func (f *function) entersNow(functions map[string]*function) (enters bool) {
	ast.Inspect(f.node, func(n ast.Node) bool {
		if n, ok := n.(*ast.CallExpr); ok {
			for _, a := range f.inVirtualTime(n, functions) {
				ast.Inspect(a, func(n ast.Node) bool {
					id, ok := n.(*ast.Ident)
					enters = enters || ok && f.given[f.info.Uses[id]]
					return true
				})
			}
		}
		return true
	})
	return enters
}

// note takes what a node of the function says, unless it is in virtual time.
func (f *function) note(n ast.Node, functions map[string]*function) bool {
	switch n := n.(type) {
	case *ast.Ident:
		name := f.used(n)
		if _, variable := f.info.Uses[n].(*types.Var); variable && f.table != nil {
			f = f.table
		}
		if slices.Contains(readings, name) {
			f.readings[name] = true
		} else {
			f.calls[name] = true
		}
	case *ast.CompositeLit:
		if f.table != nil {
			for _, e := range n.Elts {
				ast.Inspect(e, func(n ast.Node) bool { return f.table.note(n, functions) })
			}
			return false
		}
	case *ast.CallExpr:
		if f.called(n) == tells {
			f.told = append(f.told, fmt.Sprintf("%s, within %s", value(f.info, n.Args[2]), value(f.info, n.Args[1])))
		}
		if skipped := f.inVirtualTime(n, functions); len(skipped) > 0 {
			f.calls[f.called(n)] = true
			for _, a := range n.Args {
				if !slices.Contains(skipped, a) {
					ast.Inspect(a, func(n ast.Node) bool { return f.note(n, functions) })
				}
			}
			return false
		}
	}
	return true
}

func value(info *types.Info, e ast.Expr) string {
	if v := info.Types[e].Value; v != nil && v.Kind() == constant.Int {
		d, _ := constant.Int64Val(v)
		return time.Duration(d).String()
	} else if v != nil {
		return constant.StringVal(v)
	}
	return types.ExprString(e)
}
