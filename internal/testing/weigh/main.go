// Command weigh counts what the product takes: the Go of the main module without its tests,
// internal/testing and internal/failpoint.
//
//	go run ./internal/testing/weigh            all of it
//	go run ./internal/testing/weigh folder …   some folders, with those below them
//
// It prints a line for each package, and the sum. Tokens are those of the compiler, without comments:
// they do not depend on how long a line is.
package main

import (
	"fmt"
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// weight is what some files take.
type weight struct{ files, lines, code, comments, tokens int }

func (w *weight) add(o weight) {
	w.files += o.files
	w.lines += o.lines
	w.code += o.code
	w.comments += o.comments
	w.tokens += o.tokens
}

func (w weight) print(name string) {
	fmt.Printf("%-34s %5d %7d %7d %8d %8d\n", name, w.files, w.lines, w.code, w.comments, w.tokens)
}

func main() {
	folders := os.Args[1:]
	if len(folders) == 0 {
		folders = []string{"."}
	}
	fmt.Printf("%-34s %5s %7s %7s %8s %8s\n", "package", "files", "lines", "code", "comments", "tokens")
	var all weight
	for _, f := range folders {
		w, err := weigh(f)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		all.add(w)
	}
	all.print("all")
}

// weigh weighs the packages of a folder, and prints each.
func weigh(folder string) (all weight, err error) {
	of, order := map[string]*weight{}, []string{}
	err = filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return skip(folder, path)
		case filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name := filepath.Dir(path)
		if of[name] == nil {
			of[name] = &weight{}
			order = append(order, name)
		}
		of[name].add(weighFile(src))
		return nil
	})
	for _, name := range order {
		of[name].print(name)
		all.add(*of[name])
	}
	return all, err
}

// skip leaves out what is not of the product, and other modules.
func skip(root, path string) error {
	switch name := filepath.Base(path); {
	case path == root:
		return nil
	case filepath.ToSlash(path) == "internal/testing", filepath.ToSlash(path) == "internal/failpoint",
		name == "testdata", name == "node_modules", strings.HasPrefix(name, "."):
		return filepath.SkipDir
	}
	if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
		return filepath.SkipDir
	}
	return nil
}

func weighFile(src []byte) weight {
	w := weight{files: 1, lines: strings.Count(string(src), "\n")}
	files := token.NewFileSet()
	f := files.AddFile("", -1, len(src))
	var s scanner.Scanner
	s.Init(f, src, nil, scanner.ScanComments)
	code, comments := map[int]bool{}, map[int]bool{}
	for {
		pos, tok, text := s.Scan()
		if tok == token.EOF {
			break
		}
		line := f.Line(pos)
		if tok == token.SEMICOLON && text == "\n" { // put in by the scanner
			continue
		}
		on := code
		if tok == token.COMMENT {
			on = comments
		} else {
			w.tokens++
		}
		for i := range strings.Count(text, "\n") + 1 {
			on[line+i] = true
		}
	}
	w.code = len(code)
	for line := range comments {
		if !code[line] {
			w.comments++
		}
	}
	return w
}
