package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/settings"
)

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
func (s *sources) place(err error) problem {
	p := s.problem(settingOf(err.Error()), err.Error())
	p.err = err
	if p.given = s.given[p.Setting]; p.given != "" {
		p.File, p.Line = "", 0
	}
	return p
}

// problem returns a problem with a setting of the file.
func (s *sources) problem(setting, text string) problem {
	line, _ := s.line(setting)
	return problem{File: s.file, Line: line, Setting: setting, Text: text}
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

// check returns all that is wrong with a configuration, beside what was found when it was
// read, and what only follows from that.
func (c fileConfig) check(found problems) problems {
	all := slices.Clone(found)
	c.HTTP = cmp.Or(c.HTTP, defaultHTTP)
	_, err := c.logOptions(false)
	for _, err := range append(settings.Each(err), settings.Each(c.Check())...) {
		p := c.sources.place(err)
		if !slices.ContainsFunc(found, p.follows) {
			all = append(all, p)
		}
	}
	all.sort()
	return all
}
