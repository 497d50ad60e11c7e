package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Limits of a configuration file. The parser compares every key of a map with every other
// key, and reports each pair.
const (
	maxConfig  = 1 << 20 // in bytes
	maxEntries = 1024    // per map
	maxDepth   = 32      // of nested maps and lists
	maxReports = 10      // mistakes reported in one error
)

// parseConfig reads YAML. Its errors name the line. After an error cfg must not be used.
func parseConfig(b []byte) (cfg fileConfig, err error) {
	cfg = newConfig()
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
	if err := checkSettings(root); err != nil {
		return cfg, err
	}
	if err := root.Decode(&cfg); err != nil {
		return fileConfig{}, plain(err)
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

// plain returns an error of the parser without the parser's name. The parser has a type
// for values of a wrong type only; its other errors are texts.
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
				return fmt.Errorf("line %d: %s is there already, at line %d: leave out one of them",
					k.Line, k.Value, first)
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

// checkSettings compares a file with the types of its settings. The parser would do the
// same, but its errors are texts that name Go types.
func checkSettings(root *yaml.Node) error {
	c := checker{seen: map[visit]bool{}}
	c.value(root, field{typ: reflect.TypeFor[fileConfig]()})
	if len(c.mistakes) == 0 {
		return nil
	}
	if more := len(c.mistakes) - maxReports; more > 0 {
		c.mistakes = append(c.mistakes[:maxReports], fmt.Sprintf("and %d more", more))
	}
	return errors.New(strings.Join(c.mistakes, "; "))
}

// checker collects the mistakes of a file.
type checker struct {
	seen     map[visit]bool // values are checked once, however many aliases they have
	mistakes []string
}

// visit is the check of a value as a setting of a type.
type visit struct {
	value *yaml.Node
	typ   reflect.Type
}

func (c *checker) report(line int, format string, args ...any) {
	c.mistakes = append(c.mistakes, fmt.Sprintf("line %d: ", line)+fmt.Sprintf(format, args...))
}

// value checks the value of a setting.
func (c *checker) value(n *yaml.Node, f field) {
	line := n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	f.typ = inner(f.typ)
	at := visit{n, f.typ}
	if c.seen[at] {
		return
	}
	c.seen[at] = true
	switch kind := f.typ.Kind(); {
	case n.ShortTag() == "!!null": // the default
	case kind == reflect.Struct, kind == reflect.Map:
		c.entries(n, f, line)
	case kind == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, e := range n.Content {
			c.value(e, field{f.name, f.part, f.typ.Elem()})
		}
	default:
		c.single(n, f, line)
	}
}

// entries checks a map of settings.
func (c *checker) entries(n *yaml.Node, f field, line int) {
	if n.Kind != yaml.MappingNode {
		c.wrongType(n, f, line)
		return
	}
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.ShortTag() == "!!merge" {
			c.merged(v, f)
		} else if m, ok := f.member(k.Value); ok {
			c.value(v, m)
		} else {
			c.unknown(k, f)
		}
	}
}

// merged checks the maps that are merged into a map of settings. Like the parser it takes a
// map, an alias of a map, or a list of these.
func (c *checker) merged(v *yaml.Node, f field) {
	list := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		list = v.Content
	}
	for _, m := range list {
		if m.Kind != yaml.MappingNode && (m.Kind != yaml.AliasNode || m.Alias.Kind != yaml.MappingNode) {
			c.report(m.Line, "<<: map merge requires map or sequence of maps as the value")
			continue
		}
		c.value(m, f)
	}
}

// single checks a value that is not a map.
func (c *checker) single(n *yaml.Node, f field, line int) {
	if isWhole(f.typ) && n.ShortTag() == "!!float" { // the parser would truncate it
		c.report(line, "%s: give a whole number, not %q", f.name, n.Value)
		return
	}
	err := n.Decode(reflect.New(f.typ).Interface())
	var wrong *yaml.TypeError
	switch {
	case errors.As(err, &wrong):
		c.wrongType(n, f, line)
	case err != nil: // from UnmarshalText
		c.report(line, "%s: %v", f.name, plain(err))
	}
}

func isWhole(t reflect.Type) bool {
	return t.PkgPath() == "" && (t.Kind() == reflect.Int || t.Kind() == reflect.Uint32)
}

// renamed maps the former names of settings to their present names.
var renamed = map[string]string{"hold": "replica_lag", "known": "existing_keys"}

// unknown reports a key that names no setting.
func (c *checker) unknown(k *yaml.Node, f field) {
	names := settings(f.typ)
	if now := renamed[k.Value]; slices.Contains(names, now) {
		c.report(k.Line, "%q is %s now", k.Value, now)
		return
	}
	whose, there := "", "; there are"
	if f.part != "" {
		whose = " of " + f.part
	}
	if near := nearest(k.Value, names); near != "" {
		there = fmt.Sprintf(": did you mean %s? There are", near)
	}
	c.report(k.Line, "%q is no setting%s%s %s", k.Value, whose, there, strings.Join(names, ", "))
}

// wrongType reports a value of a wrong type. It shows no text that may be a secret.
func (c *checker) wrongType(n *yaml.Node, f field, line int) {
	name := f.name
	if name != "" { // it is not the whole file
		name += ": "
	}
	c.report(line, "%sgive %s, not %s", name, cmp.Or(kinds[f.typ], "something else"), shownNode(n, f.typ))
}

// shownNode describes the value that stands in the place of a setting.
func shownNode(n *yaml.Node, instead reflect.Type) string {
	const enough = 10 // bytes
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a map"
	case mayBeSecret(instead):
		return "a text"
	case len(n.Value) > enough:
		return fmt.Sprintf("%q", n.Value[:enough-3]+"...")
	}
	return fmt.Sprintf("%q", n.Value)
}

// kinds describes the values of each type that a setting may have.
var kinds = map[reflect.Type]string{
	reflect.TypeFor[int]():                       "a number",
	reflect.TypeFor[uint32]():                    "a number from 0 to 4294967295",
	reflect.TypeFor[float64]():                   "a number, such as 0.1",
	reflect.TypeFor[[]int]():                     "a list of numbers, such as [404, 410]",
	reflect.TypeFor[[]string]():                  "a list, such as [this, that]",
	reflect.TypeFor[string]():                    "text",
	reflect.TypeFor[postgres.Format]():           "column, json or msgpack",
	reflect.TypeFor[bool]():                      "true or false",
	reflect.TypeFor[time.Duration]():             "a time such as 30s or 2h",
	reflect.TypeFor[sidecar.Size]():              "a size such as 64MiB or 1GiB",
	reflect.TypeFor[sidecar.FileMode]():          "octal permission bits, such as 0660",
	reflect.TypeFor[fileNamespace]():             "the namespace's settings, such as default_ttl: 5m",
	reflect.TypeFor[map[string]fileNamespace]():  "names of namespaces, each with its settings",
	reflect.TypeFor[map[string]sidecar.Grants](): "names of namespaces, or \"*\", each with read, write and admin",
	reflect.TypeFor[sidecar.Grants]():            "read, write and admin, each a list such as [user:web, group:ops]",
	reflect.TypeFor[map[string]sidecar.Token]():  "names of tokens, each with its file",
	reflect.TypeFor[sidecar.Token]():             "settings, such as file: /etc/cachesidecar/web.token",
	reflect.TypeFor[map[string]string]():         "names, each with its value",
	reflect.TypeFor[fileOrigin](): "a kind of origin with its settings, " +
		"such as http: {url: \"http://127.0.0.1:8080/{key}\"}",
	reflect.TypeFor[httporigin.Config]():    "settings, such as url: http://127.0.0.1:8080/{key}",
	reflect.TypeFor[postgres.Config]():      "settings, such as dsn_file: /etc/cachesidecar/users.dsn",
	reflect.TypeFor[redisorigin.Config]():   "settings, such as address: 127.0.0.1:6379",
	reflect.TypeFor[memcached.Config]():     "settings, such as servers: [127.0.0.1:11211]",
	reflect.TypeFor[execorigin.Config]():    "settings, such as command: [/usr/local/bin/load]",
	reflect.TypeFor[sidecar.Limits]():       "settings, such as concurrency: 16",
	reflect.TypeFor[sidecar.TLSFiles]():     "files, such as cert: /etc/cachesidecar/node.crt",
	reflect.TypeFor[sidecar.Breaker]():      "settings, such as failures: 5",
	reflect.TypeFor[sidecar.ExistingKeys](): "settings, such as keys: 1000000",
	reflect.TypeFor[sidecar.Warm]():         "settings, such as rate: 500",
	reflect.TypeFor[fileConfig]():           "settings, such as l2_size: 1GiB",
}

// mayBeSecret reports whether text in the place of a map of this type may be a secret: an
// origin's DSN, a token, or the content of a file with secrets. Errors do not show it.
func mayBeSecret(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[map[string]string](), reflect.TypeFor[sidecar.Token](),
		reflect.TypeFor[map[string]sidecar.Token](), reflect.TypeFor[fileOrigin]():
		return true
	}
	return reflect.PointerTo(t).Implements(reflect.TypeFor[loader.OriginConfig]())
}
