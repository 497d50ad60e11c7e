package main

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// problem is one thing that is wrong with a configuration.
type problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // in File; 0: unknown
	Setting string `json:"setting,omitempty"`
	Text    string `json:"problem"`

	given string // the flag or variable that gives the setting
	err   error  // nil, or what Text is made from
}

// String returns a line of text: the place, as compilers write it, and the problem.
func (p problem) String() string {
	switch {
	case p.given != "":
		return p.given + ": " + p.Text
	case p.File != "" && p.Line > 0:
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text)
	case p.Line > 0:
		return fmt.Sprintf("line %d: %s", p.Line, p.Text)
	case p.File != "":
		return p.File + ": " + p.Text
	}
	return p.Text
}

// follows reports whether the problem may only follow from another one that was found
// before it: both concern the same setting or one that is in it; or the origin of a
// namespace is wrong, counts as left out, and the namespace's other settings need it.
func (p problem) follows(from problem) bool {
	if p.Setting == "" || from.Setting == "" {
		return false
	}
	origin := originOf.FindStringSubmatch(from.Setting)
	return within(p.Setting, from.Setting) || within(from.Setting, p.Setting) ||
		origin != nil && within(p.Setting, origin[1]) && !within(p.Setting, origin[0])
}

// originOf matches the path of a namespace's origin, and of the namespace.
var originOf = regexp.MustCompile(`^(namespaces\..*)\.origin\b`)

// within reports whether a path is another one, or in it.
func within(path, other string) bool { return path == other || strings.HasPrefix(path, other+".") }

// problems is all that is wrong with a configuration, as one error.
type problems []problem

func (list problems) Error() string {
	lines := make([]string, len(list))
	for i, p := range list {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (list problems) Unwrap() (all []error) {
	for _, p := range list {
		if p.err != nil {
			all = append(all, p.err)
		}
	}
	return all
}

// orNil returns the list, or nil if it is empty.
func (list problems) orNil() error {
	if len(list) == 0 {
		return nil
	}
	return list
}

// counted says how many problems there are.
func (list problems) counted() string {
	if len(list) == 1 {
		return "1 problem in the configuration"
	}
	return fmt.Sprintf("%d problems in the configuration", len(list))
}

// sort orders the list: problems without a line come last.
func (list problems) sort() {
	slices.SortStableFunc(list, func(a, b problem) int {
		return cmp.Or(cmp.Compare(cmp.Or(a.Line, math.MaxInt), cmp.Or(b.Line, math.MaxInt)),
			cmp.Compare(a.Setting, b.Setting), cmp.Compare(a.Text, b.Text))
	})
}

// A message names its setting first: "l2_size 1 B: give …", "namespace a: quota 1 B: …",
// "access: users: read: …". These match the namespace and the next name.
var (
	namespaceFirst = regexp.MustCompile(`^namespace ("(?:[^"\\]|\\.)*"|[^ :]+):? `)
	nameFirst      = regexp.MustCompile(`^([A-Za-z0-9_.*-]+)(:? |$)`)
)

// settingOf returns the path of the setting that a message of Config.Check names, such as
// namespaces.a.limits.rate; "" if it names none.
func settingOf(text string) string {
	var path []string
	at := field{typ: reflect.TypeFor[fileConfig]()}
	if m := namespaceFirst.FindStringSubmatch(text); m != nil {
		name := m[1]
		if plain, err := strconv.Unquote(name); err == nil {
			name = plain
		}
		path, at = []string{"namespaces", name}, field{typ: reflect.TypeFor[fileNamespace]()}
		text = text[len(m[0]):]
	}
	for {
		m := nameFirst.FindStringSubmatch(text)
		if m == nil {
			break
		}
		names := strings.Split(m[1], ".")
		if inner(at.typ).Kind() == reflect.Map { // whose names may have dots
			if m[2] != ": " {
				break
			}
			names = m[1:2]
		}
		for _, name := range names {
			next, ok := at.member(name)
			if !ok {
				return strings.Join(path, ".")
			}
			path, at = append(path, name), next
		}
		if text = text[len(m[0]):]; m[2] != ": " {
			break
		}
	}
	return strings.Join(path, ".")
}
