package configfile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"` // in File; 0: unknown
	Setting string `json:"setting,omitempty"`
	Text    string `json:"problem"`

	given string // the flag or variable that gives the setting
	err   error  // nil, or what Text is made from
}

// String returns a line of text: the place, as compilers write it, and the problem.
func (p Problem) String() string {
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
func (p Problem) follows(from Problem) bool {
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

// Problems is all that is wrong with a configuration, as one error.
type Problems []Problem

func (list Problems) Error() string {
	lines := make([]string, len(list))
	for i, p := range list {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func (list Problems) Unwrap() (all []error) {
	for _, p := range list {
		if p.err != nil {
			all = append(all, p.err)
		}
	}
	return all
}

// OrNil returns the list, or nil if it is empty.
func (list Problems) OrNil() error {
	if len(list) == 0 {
		return nil
	}
	return list
}

// Counted says how many problems there are.
func (list Problems) Counted() string {
	if len(list) == 1 {
		return "1 problem in the configuration"
	}
	return fmt.Sprintf("%d problems in the configuration", len(list))
}

// Sort orders the list: problems without a line come last.
func (list Problems) Sort() {
	slices.SortStableFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(cmp.Or(a.Line, math.MaxInt), cmp.Or(b.Line, math.MaxInt)),
			cmp.Compare(a.Setting, b.Setting), cmp.Compare(a.Text, b.Text))
	})
}

// sources says where each setting of a configuration comes from.
type sources struct {
	file  string            // the path of the file; "" without one
	root  *yaml.Node        // of the file; nil if it is empty
	given map[string]string // the flag or variable that gives a setting, by its key in a file
}

// line returns the line of the file that gives a setting, or the part that it would stand
// in; 0 if there is none. found is the path of what was found.
func (s *sources) line(path string) (line int, found string) {
	n, rest := s.root, path
	for n != nil && rest != "" {
		key, value := entry(n, rest, 0)
		if key == nil {
			break
		}
		line, n = key.Line, value
		if rest = strings.TrimPrefix(rest[len(key.Value):], "."); rest == "" {
			return line, path
		}
	}
	return line, strings.TrimSuffix(strings.TrimSuffix(path, rest), ".")
}

// entry returns the key and the value in a map that a path begins with. A map's own keys
// come before the keys that are merged into it, and the longest key before others.
func entry(n *yaml.Node, path string, depth int) (key, value *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.MappingNode || depth > maxDepth {
		return nil, nil
	}
	for i := 0; i < len(n.Content); i += 2 {
		k := n.Content[i]
		if (path == k.Value || strings.HasPrefix(path, k.Value+".")) && (key == nil || len(k.Value) > len(key.Value)) {
			key, value = k, n.Content[i+1]
		}
	}
	for i := 0; i < len(n.Content) && key == nil; i += 2 {
		if n.Content[i].ShortTag() != "!!merge" {
			continue
		}
		merged := []*yaml.Node{n.Content[i+1]}
		if merged[0].Kind == yaml.SequenceNode {
			merged = merged[0].Content
		}
		for _, m := range merged {
			if key == nil {
				key, value = entry(m, path, depth+1)
			}
		}
	}
	return key, value
}

// place makes a problem from an error of a check, and finds where the setting was given.
func (s *sources) place(err error) Problem {
	var of *settings.Problem
	setting := ""
	if errors.As(err, &of) {
		setting = of.Setting
	}
	p := s.problem(setting, err.Error())
	p.err = err
	if p.given = s.given[p.Setting]; p.given != "" {
		p.File, p.Line = "", 0
	}
	return p
}

// join adds the errors of a check to what was found, without what only follows from that.
func (s *sources) join(found Problems, checked error) Problems {
	all := slices.Clone(found)
	for _, err := range settings.Each(checked) {
		if p := s.place(err); !slices.ContainsFunc(found, p.follows) {
			all = append(all, p)
		}
	}
	all.Sort()
	return all
}

// problem returns a problem with a setting of the file.
func (s *sources) problem(setting, text string) Problem {
	line, _ := s.line(setting)
	return Problem{File: s.file, Line: line, Setting: setting, Text: text}
}

// of returns where a setting comes from, in words.
func (s *sources) of(path string) string {
	if from := s.given[path]; strings.HasPrefix(from, "-") {
		return "flag " + from
	} else if from != "" {
		return from
	}
	if line, found := s.line(path); found == path && line > 0 {
		return fmt.Sprintf("%s:%d", s.file, line)
	}
	return "default"
}

// ProblemWith returns a problem with a setting of the file.
func (file *File) ProblemWith(setting, text string) Problem {
	return file.sources.problem(setting, settings.Problemf(setting, ": %s", text).Error())
}

// JoinProblems adds the errors of a check to what was found when the file was read, without what only follows from
// that.
func (file *File) JoinProblems(checked error) Problems { return file.sources.join(file.Wrong, checked) }

// FindProblems returns all that is wrong with a configuration, without what only follows from what was found
// when it was read.
func (file File) FindProblems() Problems {
	file.HTTP = cmp.Or(file.HTTP, DefaultHTTP)
	_, err := file.LogOptions(false)
	return file.JoinProblems(errors.Join(err, file.Check()))
}
