package cachesidecar

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// mostFiles bounds the files that a request passes on its way to another host and back.
const mostFiles = 15

// TestLifeOfAGet follows the table of ARCHITECTURE.md: each function is in its file, and names what it
// is said to call.
func TestLifeOfAGet(t *testing.T) {
	page, err := os.ReadFile("ARCHITECTURE.md")
	testenv.Must(t, err)
	_, table, _ := strings.Cut(string(page), "| file | function | calls |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	name := regexp.MustCompile("`([^`]+)`")
	files := map[string]*ast.File{}
	rows := 0
	for row := range strings.Lines(table) {
		columns := strings.Split(row, "|")
		if len(columns) < 4 || strings.HasPrefix(row, "|---") {
			continue
		}
		rows++
		path, function := name.FindStringSubmatch(columns[1]), name.FindStringSubmatch(columns[2])
		if path == nil || function == nil {
			t.Fatalf("%q names no file or no function", row)
		}
		f := files[path[1]]
		if f == nil {
			if f, err = parser.ParseFile(token.NewFileSet(), path[1], nil, 0); err != nil {
				t.Fatal(err)
			}
			files[path[1]] = f
		}
		used := usedIn(f, function[1])
		if used == nil {
			t.Errorf("%s has no function %s", path[1], function[1])
			continue
		}
		for _, called := range name.FindAllStringSubmatch(columns[3], -1) {
			if !used[called[1]] {
				t.Errorf("%s: %s does not call %s", path[1], function[1], called[1])
			}
		}
	}
	if rows < 10 || len(files) > mostFiles {
		t.Errorf("%d rows with %d files, want at most %d files", rows, len(files), mostFiles)
	}
}

// usedIn returns the names that the functions with a name use; nil: there is none.
func usedIn(f *ast.File, name string) map[string]bool {
	var used map[string]bool
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Name.Name != name || fn.Body == nil {
			continue
		}
		if used == nil {
			used = map[string]bool{}
		}
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				used[id.Name] = true
			}
			return true
		})
	}
	return used
}
