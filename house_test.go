package cachesidecar

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// Limits of the layout.
const (
	largePackage = 2000 // lines; from here on the files of a package have an order
	maxBack      = 10   // percent of the references between files that may run against the order
	maxFile      = 450  // lines
	maxFunc      = 60   // lines, except for one table or one switch
	maxColumns   = 120  // a tab counts as 4
	maxMethods   = 45   // of a type outside l2
	backPairs    = 8    // pairs of files of which the lower uses the higher, if maxPairs does not name the package
)

// maxPairs has what packages have come to. A figure is the number of pairs itself, and may only go down.
var maxPairs = map[string]int{
	"client":              3,
	"clients/conformance": 4,
	"cmd/cachesidecar":    3,
	"internal/cluster":    3,
	"internal/engine":     13,
	"internal/memcached":  10,
	"internal/namespaces": 4,
	"internal/peer":       3,
	"internal/rpc/server": 5,
	"internal/wire":       7,
	"l2/ownership":        11,
	"l2/segment":          20,
	"loader/postgres":     10,
	"sidecar":             6,
}

// listed is what go list says about a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	Module                  struct{ Main bool }
}

// lists is what list has found, by folder.
var lists = map[string][]listed{}

// list runs go list in the folder of a module, once, with the export data of all packages and their dependencies.
func list(t *testing.T, folder string) (ours []listed, exports map[string]string) {
	t.Helper()
	if lists[folder] == nil {
		lists[folder] = listAll(t, folder)
	}
	exports = map[string]string{}
	for _, p := range lists[folder] {
		if exports[p.ImportPath] = p.Export; p.Module.Main {
			ours = append(ours, p)
		}
	}
	return ours, exports
}

func listAll(t *testing.T, folder string) (all []listed) {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-export", "-json=ImportPath,Dir,Export,GoFiles,Module", "./...")
	cmd.Dir, cmd.Stderr = folder, os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// TestLayout checks the layout of each package: the order of its files, and the sizes of
// files, functions and types.
func TestLayout(t *testing.T) {
	gone := maps.Clone(maxPairs)
	for _, folder := range inTable {
		ours, exports := list(t, folder)
		fset := token.NewFileSet()
		imp := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
		for _, p := range ours {
			t.Run(rel(p.ImportPath), func(t *testing.T) {
				checkPackage(t, fset, imp, p)
			})
			delete(gone, rel(p.ImportPath))
		}
	}
	if len(gone) > 0 {
		t.Errorf("maxPairs names packages that are not there: %v", gone)
	}
}

// TestLayoutOfOthers checks the files and functions of the other modules, whose
// dependencies may not be there. Their lines may be long: many are a page's text.
func TestLayoutOfOthers(t *testing.T) {
	for _, module := range []string{"benchmarks", "checks"} {
		found := 0
		err := filepath.WalkDir(module, func(path string, _ fs.DirEntry, err error) error {
			if filepath.Ext(path) == ".go" && !strings.HasSuffix(path, "_test.go") {
				found++
				checkFile(t, token.NewFileSet(), path)
			}
			return err
		})
		if err != nil || found == 0 {
			t.Errorf("%s: %d files: %v", module, found, err)
		}
	}
}

// checkFile checks the sizes of a file and of its functions.
func checkFile(t *testing.T, fset *token.FileSet, path string) (src []byte, f *ast.File) {
	t.Helper()
	src, err := os.ReadFile(path)
	testenv.Must(t, err)
	f, err = parser.ParseFile(fset, path, src, parser.ParseComments|parser.SkipObjectResolution)
	testenv.Must(t, err)
	if n := bytes.Count(src, []byte("\n")); n > maxFile {
		t.Errorf("%s has %d lines, more than %d: divide it", path, n, maxFile)
	}
	checkFuncs(t, fset, f)
	return src, f
}

func checkPackage(t *testing.T, fset *token.FileSet, imp types.Importer, p listed) {
	var files []*ast.File
	lines := 0
	for _, name := range p.GoFiles {
		src, f := checkFile(t, fset, filepath.Join(p.Dir, name))
		checkColumns(t, name, src)
		files = append(files, f)
		lines += fset.File(f.FileStart).LineCount()
	}
	if lines < largePackage && strings.HasPrefix(rel(p.ImportPath), "l2/") {
		return
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	pkg, err := (&types.Config{Importer: imp}).Check(p.ImportPath, fset, files, info)
	testenv.Must(t, err)
	if !strings.HasPrefix(rel(p.ImportPath), "l2/") {
		checkMethods(t, pkg)
	}
	if lines >= largePackage {
		checkOrder(t, fset, pkg, info)
	} else if maxPairs[rel(p.ImportPath)] > 0 {
		t.Error("maxPairs names a package that is not large: take it out")
	}
}

func checkColumns(t *testing.T, name string, src []byte) {
	for i, line := range strings.Split(string(src), "\n") {
		if n := len([]rune(strings.ReplaceAll(line, "\t", "    "))); n > maxColumns {
			t.Errorf("%s:%d has %d columns, more than %d", name, i+1, n, maxColumns)
		}
	}
}

func checkFuncs(t *testing.T, fset *token.FileSet, f *ast.File) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
		if n > maxFunc && !oneStatement(fset, fn.Body, n) {
			t.Errorf("%s: %s has %d lines, more than %d: divide it", fset.Position(fn.Pos()), fn.Name.Name, n, maxFunc)
		}
	}
}

// oneStatement reports whether one table or one switch makes up most of a body.
func oneStatement(fset *token.FileSet, body *ast.BlockStmt, lines int) bool {
	for _, s := range body.List {
		if fset.Position(s.End()).Line-fset.Position(s.Pos()).Line+1 < lines*3/4 {
			continue
		}
		switch s := s.(type) {
		case *ast.SwitchStmt, *ast.TypeSwitchStmt, *ast.ReturnStmt, *ast.AssignStmt, *ast.DeclStmt:
			return true
		case *ast.RangeStmt:
			_, table := s.X.(*ast.CompositeLit)
			return table
		}
	}
	return false
}

func checkMethods(t *testing.T, pkg *types.Package) {
	for _, name := range pkg.Scope().Names() {
		tn, ok := pkg.Scope().Lookup(name).(*types.TypeName)
		if !ok || tn.IsAlias() {
			continue
		}
		if named, ok := tn.Type().(*types.Named); ok && named.NumMethods() > maxMethods {
			t.Errorf("type %s has %d methods, more than %d: it has more than one duty", name, named.NumMethods(), maxMethods)
		}
	}
}

// checkOrder checks that the files of a package can be put in an order in which nearly
// all references run one way, and those that do not join few pairs of files.
func checkOrder(t *testing.T, fset *token.FileSet, pkg *types.Package, info *types.Info) {
	type reference struct {
		from string
		to   types.Object
	}
	seen := map[reference]bool{}
	refs := map[[2]string][]string{} // from and to, with the names
	files := map[string]bool{}
	for id, o := range info.Uses {
		if o.Pkg() != pkg || !o.Pos().IsValid() {
			continue
		}
		from, to := filepath.Base(fset.Position(id.Pos()).Filename), filepath.Base(fset.Position(o.Pos()).Filename)
		if from == to || seen[reference{from, o}] {
			continue
		}
		seen[reference{from, o}] = true
		files[from], files[to] = true, true
		refs[[2]string{from, to}] = append(refs[[2]string{from, to}], o.Name())
	}
	order := slices.Sorted(maps.Keys(files))
	weight := func(a, b string) int { return len(refs[[2]string{a, b}]) }
	total, back := len(seen), 0
	order = arrange(order, weight)
	var worst []string
	for i, low := range order {
		for _, high := range order[i+1:] {
			if n := weight(low, high); n > 0 {
				back += n
				worst = append(worst, fmt.Sprintf("%4d %s → %s: %s", n, low, high, strings.Join(refs[[2]string{low, high}], ", ")))
			}
		}
	}
	slices.Sort(worst)
	slices.Reverse(worst)
	most, named := maxPairs[rel(pkg.Path())]
	if !named {
		most = backPairs
	} else if len(worst) < most {
		t.Errorf("maxPairs allows %d pairs of files, and there are %d: lower it", most, len(worst))
	}
	report := t.Logf
	if back*100 > maxBack*total || len(worst) > most {
		report = t.Errorf
	}
	report("%d of %d references between files run back up (%d %%, at most %d), in %d pairs of files (at most %d)\n"+
		"from the lowest: %s\n%s", back, total, back*100/max(total, 1), maxBack, len(worst), most,
		strings.Join(order, " "), strings.Join(worst, "\n"))
}

// arrange returns the files in an order, lowest first, in which few references run from a
// lower file to a higher one. It moves single files as long as that helps.
func arrange(files []string, weight func(a, b string) int) []string {
	for better := true; better; {
		better = false
		for _, f := range slices.Clone(files) {
			at := slices.Index(files, f)
			rest := slices.Delete(slices.Clone(files), at, at+1)
			// cost is how many references run up if f stands before rest[i].
			cost := 0
			for _, g := range rest {
				cost += weight(f, g)
			}
			best, least, now := 0, cost, 0
			for i := range len(rest) + 1 {
				if i > 0 {
					cost += weight(rest[i-1], f) - weight(f, rest[i-1])
				}
				if cost < least {
					best, least = i, cost
				}
				if i == at {
					now = cost
				}
			}
			if least < now {
				files, better = slices.Insert(rest, best, f), true
			}
		}
	}
	return files
}
