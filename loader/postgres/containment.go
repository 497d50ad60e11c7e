package postgres

import (
	"encoding/binary"
	"errors"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// errIntricate means that too many steps would be needed to compare regular expressions.
var errIntricate = errors.New("it is too intricate to be compared with the spellings of the column: give a simpler one")

// maxSteps bounds the comparison of regular expressions, to a fraction of a second.
const maxSteps = 1 << 20

// outside returns a shortest text that matches each of some regular expressions as a whole, but not the last
// one; found is false if there is none. It follows all expressions at once, from text to longer text, as
// automata do (the product of their subset constructions).
func outside(expressions ...string) (text string, found bool, err error) {
	var all []*syntax.Prog
	for _, e := range expressions {
		parsed, err := syntax.Parse(e, syntax.Perl)
		if err != nil {
			return "", false, err
		}
		p, err := syntax.Compile(parsed.Simplify())
		if err != nil {
			return "", false, err
		}
		all = append(all, p)
	}
	type reached struct {
		text   string
		before rune       // the last one; -1: none
		at     [][]uint32 // the instructions of each expression
	}
	first := reached{before: -1}
	for _, p := range all {
		first.at = append(first.at, []uint32{uint32(p.Start)})
	}
	letters, seen := alphabet(all), map[string]bool{}
	steps := 0
	for queue := []reached{first}; len(queue) > 0; queue = queue[1:] {
		now := queue[0]
		if differs(all, now.at, now.before) {
			return now.text, true, nil
		}
		for _, letter := range letters {
			next := reached{text: now.text + string(letter), before: letter}
			alive := true
			for i, p := range all {
				steps += 1 + len(now.at[i])
				at := step(p, now.at[i], now.before, letter)
				alive = alive && (len(at) > 0 || i == len(all)-1)
				next.at = append(next.at, at)
			}
			if steps > maxSteps {
				return "", false, errIntricate
			}
			if name := nameOf(next.at, letter); alive && !seen[name] {
				seen[name] = true
				queue = append(queue, next)
			}
		}
	}
	return "", false, nil
}

// differs reports whether all expressions but the last one match what has led to these instructions.
func differs(all []*syntax.Prog, at [][]uint32, before rune) bool {
	for i, p := range all {
		matches := slices.ContainsFunc(follow(p, at[i], before, -1), func(pc uint32) bool {
			return p.Inst[pc].Op == syntax.InstMatch
		})
		if last := i == len(all)-1; matches == last {
			return false
		}
	}
	return true
}

// step returns the instructions behind a rune.
func step(p *syntax.Prog, at []uint32, before, letter rune) (next []uint32) {
	for _, pc := range follow(p, at, before, letter) {
		switch in := &p.Inst[pc]; in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if in.MatchRune(letter) {
				next = append(next, in.Out)
			}
		}
	}
	slices.Sort(next)
	return slices.Compact(next)
}

// follow returns the instructions that are reached between two runes.
func follow(p *syntax.Prog, at []uint32, before, after rune) (all []uint32) {
	been := make([]bool, len(p.Inst))
	for todo := slices.Clone(at); len(todo) > 0; {
		pc := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if been[pc] {
			continue
		}
		been[pc] = true
		switch in := &p.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			todo = append(todo, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			todo = append(todo, in.Out)
		case syntax.InstEmptyWidth:
			if in.MatchEmptyWidth(before, after) {
				todo = append(todo, in.Out)
			}
		default:
			all = append(all, pc)
		}
	}
	return all
}

// nameOf tells states apart: the instructions, and what a word boundary or the begin of a line needs to know.
func nameOf(at [][]uint32, before rune) string {
	name := []byte{byte(syntax.EmptyOpContext(before, 'a')), byte(syntax.EmptyOpContext(before, ' '))}
	for _, list := range at {
		name = binary.AppendUvarint(name, uint64(len(list)))
		for _, pc := range list {
			name = binary.AppendUvarint(name, uint64(pc))
		}
	}
	return string(name)
}

// alphabet returns one rune for each set of runes that no expression tells apart, those that people read
// first. No text of PostgreSQL has a zero.
func alphabet(all []*syntax.Prog) (letters []rune) {
	bounds := []rune{1, '\n', '\n' + 1, ' ', '0', '9' + 1, 'A', 'Z' + 1, '_', '_' + 1, 'a', 'z' + 1,
		0xD800, 0xE000, utf8.MaxRune + 1}
	for _, p := range all {
		for _, in := range p.Inst {
			if in.Op != syntax.InstRune && in.Op != syntax.InstRune1 {
				continue
			}
			if len(in.Rune) == 1 {
				for r, first := in.Rune[0], true; first || r != in.Rune[0]; r, first = unicode.SimpleFold(r), false {
					bounds = append(bounds, r, r+1)
				}
			}
			for i := 0; i+1 < len(in.Rune); i += 2 {
				bounds = append(bounds, in.Rune[i], in.Rune[i+1]+1)
			}
		}
	}
	slices.Sort(bounds)
	for _, r := range slices.Compact(bounds) {
		if r > 0 && r <= utf8.MaxRune && utf8.ValidRune(r) {
			letters = append(letters, r)
		}
	}
	slices.SortStableFunc(letters, func(a, b rune) int { return unreadable(a) - unreadable(b) })
	return letters
}

// unreadable says how hard a rune is to read in an example.
func unreadable(r rune) int {
	switch {
	case r >= '0' && r <= '9':
		return 0
	case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z':
		return 1
	case r > ' ' && r < 0x7f:
		return 2
	}
	return 3
}
