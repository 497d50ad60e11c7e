package main

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A mutant is one small fault in one file.
type mutant struct {
	file        string // absolute
	line        int
	kind        string
	from, to    int // the bytes that are replaced
	with        string
	was, within string // what is replaced, and the function around it
}

func (m *mutant) String() string {
	return fmt.Sprintf("%s:%d %s, %s: %s → %s",
		filepath.Base(m.file), m.line, m.within, m.kind, short(m.was), short(m.with))
}

func short(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 60 {
		s = s[:57] + "..."
	}
	return s
}

// apply returns the file's text with the fault in it.
func (m *mutant) apply() ([]byte, error) {
	src, err := os.ReadFile(m.file)
	if err != nil {
		return nil, err
	}
	return bytes.Join([][]byte{src[:m.from], []byte(m.with), src[m.to:]}, nil), nil
}

// others has what stands in for an operator.
var others = map[token.Token]token.Token{
	token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR,
	token.EQL: token.NEQ, token.NEQ: token.EQL,
	token.LAND: token.LOR, token.LOR: token.LAND,
	token.ADD: token.SUB, token.SUB: token.ADD,
}

// dull matches statements and conditions of which no test should know: logs, locks, and
// checks of an error, whose removal hangs or fails everything.
var dull = regexp.MustCompile(
	`(?i)\b(log|logs|debug|info|warn|error|lock|unlock|rlock|runlock|panic|failpoint|wg|nil|err)\b`)

// sites returns all faults that can be put into the files, in the order of the text.
func sites(files []string) ([]mutant, error) {
	var all []mutant
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, name, src, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil && fn.Name.Name != "String" {
				v := visitor{fset: fset, src: src, file: name, within: fn.Name.Name, found: &all}
				ast.Inspect(fn.Body, v.visit)
			}
		}
	}
	return all, nil
}

type visitor struct {
	fset         *token.FileSet
	src          []byte
	file, within string
	found        *[]mutant
}

func (v *visitor) text(n ast.Node) string { return string(v.src[v.at(n.Pos()):v.at(n.End())]) }

func (v *visitor) at(p token.Pos) int { return v.fset.Position(p).Offset }

func (v *visitor) add(kind string, from, to token.Pos, with string) {
	*v.found = append(*v.found, mutant{file: v.file, line: v.fset.Position(from).Line, kind: kind,
		from: v.at(from), to: v.at(to), with: with, was: string(v.src[v.at(from):v.at(to)]), within: v.within})
}

func (v *visitor) visit(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		other, ok := others[n.Op]
		if ok && !dull.MatchString(v.text(n)) && !strings.Contains(v.text(n), `"`) {
			v.add("operator", n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), other.String())
		}
	case *ast.IfStmt:
		if n.Else == nil && !dull.MatchString(v.text(n.Cond)) {
			v.add("guard taken out", n.Cond.Pos(), n.Cond.End(), "false && ("+v.text(n.Cond)+")")
		}
	case *ast.ExprStmt:
		if _, ok := n.X.(*ast.CallExpr); ok {
			v.remove("call taken out", n)
		}
	case *ast.IncDecStmt:
		v.remove("count taken out", n)
	case *ast.AssignStmt:
		if n.Tok != token.DEFINE {
			v.remove("assignment taken out", n)
		}
	}
	return true
}

func (v *visitor) remove(kind string, n ast.Stmt) {
	if !dull.MatchString(v.text(n)) {
		v.add(kind, n.Pos(), n.End(), "")
	}
}

// choose returns n faults that compile, drawn by the seed.
func choose(all []mutant, n int, seed uint64, compiles func(*mutant) bool) (chosen []mutant) {
	r := rand.New(rand.NewPCG(seed, 0))
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i := range all {
		if len(chosen) == n {
			break
		}
		if compiles(&all[i]) {
			chosen = append(chosen, all[i])
		}
	}
	return chosen
}
