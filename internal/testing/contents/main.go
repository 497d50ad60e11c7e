// Command contents prints a line for each file of the product: its path, what its first type or function says of
// itself, and the names that it declares. It is the table of contents for a reader who looks for the place of a line.
//
//	go run ./internal/testing/contents            all of it, up to 16 names of a file
//	go run ./internal/testing/contents folder …   some folders, with those below them, all names
package main

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// names bounds how many names a line has.
var names = 16

func main() {
	folders := os.Args[1:]
	if len(folders) > 0 {
		names = math.MaxInt
	} else {
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

// contents returns the first sentence of a file's first type, else of its first function, and the names of types,
// constants and functions in this order.
func contents(file *ast.File) (says string, declared []string) {
	var ofTypes, ofFunctions string // the comments
	var constants, functions []string
	for _, decl := range file.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			ofFunctions = cmp.Or(ofFunctions, d.Doc.Text())
			functions = append(functions, d.Name.Name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					ofTypes = cmp.Or(ofTypes, s.Doc.Text(), d.Doc.Text())
					declared = append(declared, s.Name.Name)
				case *ast.ValueSpec:
					if d.Tok == token.CONST {
						constants = append(constants, s.Names[0].Name)
					}
				}
			}
		}
	}
	return new(doc.Package).Synopsis(cmp.Or(ofTypes, ofFunctions)), slices.Concat(declared, constants, functions)
}
