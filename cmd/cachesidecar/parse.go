package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Limits of a configuration file. The parser compares every key of a map with every other
// key, and reports each pair.
const (
	maxConfig  = 1 << 20 // in bytes
	maxEntries = 1024    // per map
	maxDepth   = 32      // of nested maps and lists
	maxReports = 10      // mistakes reported in one error
)

// settings returns the keys that a file may have for a type.
func settings(t reflect.Type) (names []string) {
	for _, f := range fields(t) {
		names = append(names, f.name)
	}
	return names
}

// field is a key that a file may have, and the type of its setting.
type field struct {
	name string
	typ  reflect.Type
}

func fields(t reflect.Type) (list []field) {
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		switch {
		case options == "inline":
			list = append(list, fields(f.Type)...)
		case name != "" && name != "-":
			list = append(list, field{name, f.Type})
		}
	}
	return list
}

// inner returns the type that a pointer type points to, or t itself.
func inner(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}

// part is a map of settings inside a file.
type part struct {
	whose string
	typ   reflect.Type
}

// parts are the maps that a file may have, by the Go types that the parser names in its
// errors.
var parts = partsOf(field{"", reflect.TypeFor[fileConfig]()}, map[string]part{})

// mapParts are the words for an element of a setting that maps names to settings.
var mapParts = map[string]string{"namespaces": "a namespace", "access": "a namespace in access", "tokens": "a token"}

func partsOf(s field, in map[string]part) map[string]part {
	t := inner(s.typ)
	if t.Kind() == reflect.Map {
		s.name, t = mapParts[s.name], t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return in
	}
	p := part{typ: t}
	if s.name != "" {
		p.whose = " of " + s.name
	}
	in[t.String()] = p
	for _, f := range fields(t) {
		partsOf(f, in)
	}
	return in
}

// parseConfig reads YAML. Its errors name the line. After an error cfg must not be used.
func parseConfig(b []byte) (cfg fileConfig, err error) {
	if len(b) > maxConfig {
		return cfg, fmt.Errorf("the file has more than %d bytes", maxConfig)
	}
	root, err := document(b)
	if root == nil || err != nil {
		return cfg, err
	}
	if err := checkNode(root, 0); err != nil {
		return cfg, err
	}
	if err := checkWhole(root, reflect.TypeFor[fileConfig]()); err != nil {
		return cfg, err
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&cfg); err != nil {
		return fileConfig{}, explainYAML(err, root)
	}
	return cfg, cfg.complete()
}

// document parses a file of one document. It returns nil if the file is empty.
func document(b []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	var root, next yaml.Node
	if err := d.Decode(&root); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, plain(err)
	}
	if err := d.Decode(&next); err == nil {
		return nil, fmt.Errorf("line %d: a second document begins: leave out what is behind \"---\"", next.Line)
	} else if !errors.Is(err, io.EOF) {
		return nil, plain(err)
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	return root.Content[0], nil
}

func plain(err error) error { return errors.New(strings.TrimPrefix(err.Error(), "yaml: ")) }

// checkNode finds duplicate keys, and limits the work of the parser.
func checkNode(n *yaml.Node, depth int) error {
	if depth == maxDepth {
		return fmt.Errorf("line %d: more than %d maps and lists are nested", n.Line, maxDepth)
	}
	if n.Kind == yaml.MappingNode {
		if len(n.Content)/2 > maxEntries {
			return fmt.Errorf("line %d: %d entries are too many: at most %d", n.Line, len(n.Content)/2, maxEntries)
		}
		lines := map[string]int{}
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if k.Kind != yaml.ScalarNode {
				return fmt.Errorf("line %d: a key is one word", k.Line)
			}
			if first, ok := lines[k.Value]; ok {
				return fmt.Errorf("line %d: %s is there already, at line %d: leave out one of them", k.Line, k.Value, first)
			}
			lines[k.Value] = k.Line
		}
	}
	for _, c := range n.Content {
		if err := checkNode(c, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// checkWhole refuses fractions for whole numbers, since the parser would truncate them.
func checkWhole(n *yaml.Node, t reflect.Type) error {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	t = inner(t)
	for i := 0; n.Kind == yaml.MappingNode && i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at, ok := memberOf(t, k.Value)
		if !ok {
			continue
		}
		if err := checkWhole(v, at); err != nil {
			return err
		}
		for _, one := range elements(v) {
			if isWhole(at) && one.ShortTag() == "!!float" {
				return fmt.Errorf("line %d: %s: give a whole number, not %q", k.Line, k.Value, one.Value)
			}
		}
	}
	return nil
}

// memberOf returns the type of the value of a key in a map.
func memberOf(t reflect.Type, key string) (reflect.Type, bool) {
	switch t.Kind() {
	case reflect.Map:
		return t.Elem(), true
	case reflect.Struct:
		for _, f := range fields(t) {
			if f.name == key {
				return f.typ, true
			}
		}
	}
	return nil, false
}

// elements returns the elements of a list, or the value itself.
func elements(n *yaml.Node) []*yaml.Node {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind == yaml.SequenceNode {
		return n.Content
	}
	return []*yaml.Node{n}
}

func isWhole(t reflect.Type) bool {
	if t = inner(t); t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	return t.PkgPath() == "" && (t.Kind() == reflect.Int || t.Kind() == reflect.Uint32)
}

// renamed maps the former names of settings to their present names.
var renamed = map[string]string{"hold": "replica_lag", "known": "existing_keys"}

// The parser's errors about a document that is valid YAML but not a valid configuration.
var (
	unknownField = regexp.MustCompile(`(?s)^line (\d+): field (.*) not found in type (\S+)$`)
	wrongType    = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")
)

// kinds describes the values of each Go type that a setting may have.
var kinds = map[string]string{
	"int":                           "a number",
	"uint32":                        "a number from 0 to 4294967295",
	"float64":                       "a number, such as 0.1",
	"[]int":                         "a list of numbers, such as [404, 410]",
	"[]string":                      "a list, such as [this, that]",
	"string":                        "text",
	"bool":                          "true or false",
	"time.Duration":                 "a time such as 30s or 2h",
	"sidecar.Size":                  "a size such as 64MiB or 1GiB",
	"sidecar.FileMode":              "octal permission bits, such as 0660",
	"main.fileNamespace":            "the namespace's settings, such as default_ttl: 5m",
	"map[string]main.fileNamespace": "names of namespaces, each with its settings",
	"map[string]sidecar.Grants":     "names of namespaces, or \"*\", each with read, write and admin",
	"sidecar.Grants":                "read, write and admin, each a list such as [user:web, group:ops]",
	"map[string]sidecar.Token":      "names of tokens, each with its file",
	"sidecar.Token":                 "settings, such as file: /etc/cachesidecar/web.token",
	"map[string]string":             "names, each with its value",
	"main.fileOrigin":               "a kind of origin with its settings, such as http: {url: \"http://127.0.0.1:8080/{key}\"}",
	"httporigin.Config":             "settings, such as url: http://127.0.0.1:8080/{key}",
	"postgres.Config":               "settings, such as dsn_file: /etc/cachesidecar/users.dsn",
	"redisorigin.Config":            "settings, such as address: 127.0.0.1:6379",
	"memcached.Config":              "settings, such as servers: [127.0.0.1:11211]",
	"execorigin.Config":             "settings, such as command: [/usr/local/bin/load]",
	"sidecar.Limits":                "settings, such as concurrency: 16",
	"sidecar.TLSFiles":              "files, such as cert: /etc/cachesidecar/node.crt",
	"sidecar.Breaker":               "settings, such as failures: 5",
	"sidecar.Known":                 "settings, such as keys: 1000000",
	"sidecar.Warm":                  "settings, such as rate: 500",
	"main.fileConfig":               "settings, such as l2_size: 1GiB",
}

// mayBeSecret reports whether text in the place of a map of this type may be a secret: an
// origin's DSN, a token, or the content of a file with secrets. Errors do not show it.
func mayBeSecret(typ string) bool {
	return typ == "map[string]string" || strings.HasSuffix(typ, "sidecar.Token") || typ == "main.fileOrigin" || strings.HasSuffix(typ, ".Config") && typ != "sidecar.Config"
}

// explainYAML replaces the Go types in the parser's errors by the names of settings.
func explainYAML(err error, root *yaml.Node) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		// The error of a single setting; the parser does not name the setting.
		decode := func(n *yaml.Node) error { return n.Decode(new(fileConfig)) }
		if key := blame(decode, root); key != nil {
			return fmt.Errorf("line %d: %s: %w", key.Line, key.Value, plain(err))
		}
		return plain(err)
	}
	names := map[place]string{}
	placeNames(root, names)
	var lines []string
	for i, l := range te.Errors {
		if i == maxReports {
			lines = append(lines, fmt.Sprintf("and %d more", len(te.Errors)-i))
			break
		}
		if m := unknownField.FindStringSubmatch(l); m != nil {
			in := parts[m[3]]
			l = fmt.Sprintf("line %s: %q is no setting%s; there are %s", m[1], m[2], in.whose, strings.Join(settings(in.typ), ", "))
			if now, ok := renamed[m[2]]; ok {
				l = fmt.Sprintf("line %s: %q is %s now", m[1], m[2], now)
			}
		} else if m := wrongType.FindStringSubmatch(l); m != nil {
			line, _ := strconv.Atoi(m[1])
			kind, got := yaml.ScalarNode, fmt.Sprintf("%q", m[3])
			switch m[2] {
			case "seq":
				kind, got = yaml.SequenceNode, "a list"
			case "map":
				kind, got = yaml.MappingNode, "a map"
			default:
				if mayBeSecret(m[4]) {
					got = "a text"
				}
			}
			name := names[place{line, kind}]
			if m[4] == "main.fileConfig" { // the whole document
				name = ""
			}
			l = fmt.Sprintf("line %d: %sgive %s, not %s", line, name, cmp.Or(kinds[m[4]], "something else"), got)
		}
		lines = append(lines, l)
	}
	return errors.New(strings.Join(lines, "; "))
}

// blame returns the key of the innermost map entry because of which the map cannot be
// decoded, or nil.
func blame(decode func(*yaml.Node) error, m *yaml.Node) *yaml.Node {
	if m.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i < len(m.Content); i += 2 {
		k, v := m.Content[i], m.Content[i+1]
		in := func(v *yaml.Node) error {
			return decode(&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{k, v}})
		}
		var te *yaml.TypeError
		if err := in(v); err == nil || errors.As(err, &te) {
			continue
		}
		if inner := blame(in, v); inner != nil {
			return inner
		}
		return k
	}
	return nil
}

// place is what the parser reports about the place of a value.
type place struct {
	line int
	kind yaml.Kind
}

// placeNames records the setting whose value is at each place, followed by a colon. A
// place of several values gets "".
func placeNames(n *yaml.Node, names map[place]string) {
	if n.Kind == yaml.MappingNode {
		for i := 0; i < len(n.Content); i += 2 {
			at := place{n.Content[i+1].Line, n.Content[i+1].Kind}
			if _, several := names[at]; several {
				names[at] = ""
			} else {
				names[at] = n.Content[i].Value + ": "
			}
		}
	}
	for _, c := range n.Content {
		placeNames(c, names)
	}
}
