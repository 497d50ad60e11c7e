// Command contents prints a line for each file of the product: its path, what its first declaration says of
// itself, and the names of the others. It is the table of contents for a reader who looks for the place of a line.
//
//	go run ./internal/testing/contents            all of it
//	go run ./internal/testing/contents folder …   some folders, with those below them
package main

import (
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// names bounds how many names a line has.
const names = 10

func main() {
	folders := os.Args[1:]
	if len(folders) == 0 {
		folders = []string{"."}
	}
	for _, folder := range folders {
		if err := filepath.WalkDir(folder, show); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// show prints the line of a file of the product.
func show(path string, d fs.DirEntry, err error) error {
	switch name := filepath.Base(path); {
	case err != nil:
		return err
	case d.IsDir() && path != "." && (isModule(path) ||
		name == "testing" || name == "testdata" || name == "node_modules" || strings.HasPrefix(name, ".")):
		return filepath.SkipDir
	case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") || name == "doc.go":
		return nil
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	says, declared := contents(file)
	fmt.Printf("%s: %s [%s]\n", path, says, strings.Join(declared[:min(len(declared), names)], ", "))
	return nil
}

func isModule(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "go.mod"))
	return err == nil
}

// contents returns the first sentence of the first declaration that has a comment, and the names of types and
// functions, types first.
func contents(file *ast.File) (says string, declared []string) {
	var functions []string
	for _, decl := range file.Decls {
		comment := ""
		switch d := decl.(type) {
		case *ast.FuncDecl:
			comment = d.Doc.Text()
			functions = append(functions, d.Name.Name)
		case *ast.GenDecl:
			if d.Tok != token.TYPE {
				continue
			}
			comment = d.Doc.Text()
			for _, s := range d.Specs {
				declared = append(declared, s.(*ast.TypeSpec).Name.Name)
			}
		}
		if says == "" {
			says = new(doc.Package).Synopsis(comment)
		}
	}
	return says, append(declared, functions...)
}
