package cachesidecar

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A verb alone says too little as the name of a function: beginLoad and takeTurn say what. maxVerb is how many
// functions, methods and methods of interfaces may have one of these verbs as their name, each.
const (
	maxVerb  = 3
	maxVerbs = 25 // all of them together
)

var bareVerbs = []string{"begin", "end", "take", "note", "ask", "act", "say", "rest", "whole", "told", "cut", "left"}

// productFiles parses the files of the product: no tests, nothing that serves tests only, and no other module.
func productFiles(t *testing.T, each func(path string, f *ast.File)) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (path == "benchmarks" || path == "checks" || path == "clients" || path == "internal/testing" ||
			d.Name() == "testdata" || d.Name() == "node_modules" || path != "." && d.Name()[0] == '.'):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err == nil {
			found++
			each(path, f)
		}
		return err
	})
	if err != nil || found < 300 {
		t.Fatalf("%d files: %v", found, err)
	}
}

// TestBareVerbs counts the functions whose name is a verb alone.
func TestBareVerbs(t *testing.T) {
	where, sum := map[string][]string{}, 0
	productFiles(t, func(path string, f *ast.File) {
		see := func(name string) {
			if slices.Contains(bareVerbs, name) {
				where[name] = append(where[name], path)
				sum++
			}
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				see(n.Name.Name)
			case *ast.InterfaceType:
				for _, m := range n.Methods.List {
					for _, name := range m.Names {
						see(name.Name)
					}
				}
			}
			return true
		})
	})
	for verb, files := range where {
		if len(files) > maxVerb {
			t.Errorf("%d functions are named %s, at most %d may be: name what they %s: %s", len(files), verb, maxVerb, verb,
				strings.Join(files, " "))
		}
	}
	if sum > maxVerbs {
		t.Errorf("%d functions have a verb alone as their name, at most %d may: %v", sum, maxVerbs, where)
	}
}

// TestReceivers checks that one letter is one type within a package: the receivers of a second type have a longer
// name.
func TestReceivers(t *testing.T) {
	types := map[string][]string{} // by package and letter
	productFiles(t, func(path string, f *ast.File) {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || len(fn.Recv.List[0].Names) == 0 {
				continue
			}
			name, of := fn.Recv.List[0].Names[0].Name, filepath.ToSlash(filepath.Dir(path))+" "+fn.Recv.List[0].Names[0].Name
			if typ := receiverType(fn.Recv.List[0].Type); len(name) == 1 && name != "_" && !slices.Contains(types[of], typ) {
				types[of] = append(types[of], typ)
			}
		}
	})
	for of, list := range types {
		if len(list) > 1 {
			t.Errorf("%s is the receiver of %s: give all but one of these types a receiver that tells", of, strings.Join(list, ", "))
		}
	}
}

// receiverType returns the name of a receiver's type, without its type parameters.
func receiverType(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}
