package configfile

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
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// Limits of a configuration file. The parser compares every key of a map with every other
// key, and reports each pair.
const (
	maxConfig  = 1 << 20 // in bytes
	maxEntries = 1024    // per map
	maxDepth   = 32      // of nested maps and lists
	maxReports = 1000    // mistakes that are reported
)

// Parse reads YAML. What is wrong counts as left out, so that the rest can be checked.
func Parse(b []byte) (cfg File) {
	cfg = newFile()
	if len(b) > maxConfig {
		cfg.Wrong = Problems{{Text: fmt.Sprintf("the file has more than %d bytes", maxConfig)}}
		return cfg
	}
	root, wrong := document(b)
	if root == nil {
		cfg.Wrong = wrong
		return cfg
	}
	c := checker{seen: map[visit]bool{}}
	if c.shape(root, 0) {
		c.value(&root, field{typ: reflect.TypeFor[File]()})
		cfg.sources.root = root
		if err := root.Decode(&cfg); err != nil && len(c.mistakes) == 0 {
			c.mistakes = append(c.mistakes, plain(err))
		}
	}
	cfg.Wrong = c.mistakes
	cfg.complete()
	return cfg
}

// document parses a file of one document. It returns nil if the file is empty, or if it cannot be parsed.
func document(b []byte) (*yaml.Node, Problems) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	var root, next yaml.Node
	if err := d.Decode(&root); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, Problems{unreadable(b, err)}
	}
	if err := d.Decode(&next); err == nil {
		return nil, Problems{{Line: next.Line, Text: `a second document begins: leave out what is behind "---"`}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Problems{unreadable(b, err)}
	}
	if len(root.Content) == 0 {
		return nil, nil
	}
	return root.Content[0], nil
}

// tabErrors matches what the parser says of a line that a tab indents. It may name the line before.
var tabErrors = regexp.MustCompile("cannot start any token|tab character|mapping values are not allowed")

// unreadable returns an error of the parser about a text, or of the tab that is its cause.
func unreadable(text []byte, err error) Problem {
	p := plain(err)
	if line := tabIn(text); line > 0 && line <= p.Line+1 && tabErrors.MatchString(p.Text) {
		return Problem{Line: line, Text: "a tab indents the line: YAML takes spaces alone, so give spaces"}
	}
	return p
}

// lineFirst matches the line in an error of the parser.
var lineFirst = regexp.MustCompile(`^line (\d+): `)

// plain returns an error of the parser without the parser's name. The parser has a type
// for values of a wrong type only; its other errors are texts.
func plain(err error) Problem {
	p := Problem{Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	if m := lineFirst.FindStringSubmatch(p.Text); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
		p.Text = p.Text[len(m[0]):]
	}
	return p
}

// checker compares a file with the types of its settings, and collects the mistakes. The
// parser would do the same, but its errors are texts that name Go types. What is wrong is
// taken out of the file.
type checker struct {
	seen     map[visit]bool // values are checked once, however many aliases they have
	path     []string       // of the setting that is checked
	mistakes Problems
}

// visit is the check of a value as a setting of a type.
type visit struct {
	value *yaml.Node
	typ   reflect.Type
}

func (c *checker) report(line int, format string, args ...any) {
	if len(c.mistakes) == maxReports {
		c.mistakes = append(c.mistakes,
			Problem{Line: line, Text: "from here on there are more mistakes: correct the first ones"})
	}
	if len(c.mistakes) < maxReports {
		c.mistakes = append(c.mistakes,
			Problem{Line: line, Setting: strings.Join(c.path, "."), Text: fmt.Sprintf(format, args...)})
	}
}

// shape takes out duplicate keys, and limits the work of the parser. It returns false if
// the file is not to be looked at any further.
func (c *checker) shape(n *yaml.Node, depth int) bool {
	if depth == maxDepth {
		c.report(n.Line, "more than %d maps and lists are nested", maxDepth)
		return false
	}
	if n.Kind == yaml.MappingNode {
		if len(n.Content)/2 > maxEntries {
			c.report(n.Line, "%d entries are too many: at most %d", len(n.Content)/2, maxEntries)
			return false
		}
		lines, kept := map[string]int{}, n.Content[:0]
		for i := 0; i < len(n.Content); i += 2 {
			k := n.Content[i]
			if first, ok := lines[k.Value]; k.Kind != yaml.ScalarNode {
				c.report(k.Line, "a key is one word")
			} else if ok {
				c.report(k.Line, "%s is there already, at line %d: leave out one of them", k.Value, first)
			} else {
				lines[k.Value] = k.Line
				kept = append(kept, k, n.Content[i+1])
			}
		}
		n.Content = kept
	}
	for _, child := range n.Content {
		if !c.shape(child, depth+1) {
			return false
		}
	}
	return true
}

// value checks the value of a setting. It rewrites a time as the parser wants it.
func (c *checker) value(slot **yaml.Node, f field) {
	n := *slot
	line := n.Line
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	f.typ = inner(f.typ)
	if f.typ == reflect.TypeFor[time.Duration]() && n.Kind == yaml.ScalarNode {
		if d, err := settings.Time(n.Value); err == nil {
			*slot = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: d.String(), Line: line}
			return
		}
	}
	at := visit{n, f.typ}
	if good, ok := c.seen[at]; ok {
		if !good {
			*slot = nullNode(line)
		}
		return
	}
	c.seen[at] = true
	switch kind := f.typ.Kind(); {
	case n.ShortTag() == "!!null": // the default
	case kind == reflect.Struct, kind == reflect.Map:
		c.seen[at] = c.entries(n, f, line)
	case kind == reflect.Slice && n.Kind == yaml.SequenceNode:
		for i := range n.Content {
			c.value(&n.Content[i], field{f.name, f.part, f.typ.Elem()})
		}
	default:
		c.seen[at] = c.single(n, f, line)
	}
	if !c.seen[at] {
		*slot = nullNode(line)
	}
}

// nullNode stands in the place of a value that is wrong: the default.
func nullNode(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!null", Value: "null", Line: line}
}

// entries checks a map of settings. It returns false if the value is no map.
func (c *checker) entries(n *yaml.Node, f field, line int) bool {
	if n.Kind != yaml.MappingNode {
		c.wrongType(n, f, line)
		return false
	}
	kept := n.Content[:0]
	for i := 0; i < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.ShortTag() == "!!merge" {
			if !c.merged(v, f) {
				continue
			}
		} else if m, ok := f.member(k.Value); ok {
			c.path = append(c.path, k.Value)
			c.value(&v, m)
			c.path = c.path[:len(c.path)-1]
		} else {
			c.unknown(k, f)
			continue
		}
		kept = append(kept, k, v)
	}
	n.Content = kept
	return true
}

// merged checks the maps that are merged into a map of settings. Like the parser it takes a
// map, an alias of a map, or a list of these.
func (c *checker) merged(v *yaml.Node, f field) bool {
	list := []*yaml.Node{v}
	if v.Kind == yaml.SequenceNode {
		list = v.Content
	}
	good := true
	for _, m := range list {
		if m.Kind != yaml.MappingNode && (m.Kind != yaml.AliasNode || m.Alias.Kind != yaml.MappingNode) {
			c.report(m.Line, "<<: map merge requires map or sequence of maps as the value")
			good = false
			continue
		}
		c.value(&m, f)
	}
	return good
}

// single checks a value that is not a map.
func (c *checker) single(n *yaml.Node, f field, line int) bool {
	if isWhole(f.typ) && n.ShortTag() == "!!float" { // the parser would truncate it
		c.report(line, "%s: give a whole number, not %q", f.name, n.Value)
		return false
	}
	err := n.Decode(reflect.New(f.typ).Interface())
	var wrong *yaml.TypeError
	switch {
	case errors.As(err, &wrong):
		c.wrongType(n, f, line)
	case err != nil: // from UnmarshalText
		c.report(line, "%s: %s", f.name, plain(err).Text)
	}
	return err == nil
}

func isWhole(t reflect.Type) bool {
	return t.PkgPath() == "" && (t.Kind() == reflect.Int || t.Kind() == reflect.Uint32)
}

// unknown reports a key that names no setting.
func (c *checker) unknown(k *yaml.Node, f field) {
	c.path = append(c.path, k.Value)
	defer func() { c.path = c.path[:len(c.path)-1] }()
	names := settingNames(f.typ)
	whose, there := "", "; there are"
	if f.part != "" {
		whose = " of " + f.part
	}
	if hint := hint(k.Value, f.typ); hint != "" {
		there = ": " + hint + " There are"
	}
	c.report(k.Line, "%q is no setting%s%s %s", k.Value, whose, there, strings.Join(names, ", "))
}

// wrongType reports a value of a wrong type. It shows no text that may be a secret.
func (c *checker) wrongType(n *yaml.Node, f field, line int) {
	name := f.name
	if name != "" { // it is not the whole file
		name += ": "
	}
	c.report(line, "%sgive %s, not %s", name, kind(f.typ), shownNode(n, f.typ))
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

// textForms describes the values of types that are read from text.
var textForms = map[reflect.Type]string{
	reflect.TypeFor[postgres.Format]():  "column, json or msgpack",
	reflect.TypeFor[time.Duration]():    "a time such as 30s, 2h or 7d",
	reflect.TypeFor[sidecar.Size]():     "a size such as 64MiB or 1GiB",
	reflect.TypeFor[sidecar.Percent]():  "a share such as 0.1%",
	reflect.TypeFor[sidecar.FileMode](): "octal permission bits, such as 0660",
}

// kind describes the values of a setting's type.
func kind(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Uint32:
		return cmp.Or(textForms[t], "a number from 0 to 4294967295")
	case reflect.Int, reflect.Int64, reflect.Float64:
		return cmp.Or(textForms[t], "a number")
	case reflect.Slice:
		return "a list, such as [this, that]"
	case reflect.Map:
		return "names, each with its value"
	case reflect.Struct:
		names := settingNames(t)
		return "settings, such as " + strings.Join(names[:min(len(names), 3)], ", ")
	}
	return cmp.Or(textForms[t], "text")
}

// mayBeSecret reports whether text in the place of a map of this type may be a secret: an
// origin's DSN, a token, or the content of a file with secrets. Errors do not show it.
func mayBeSecret(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[map[string]string](), reflect.TypeFor[sidecar.Token](),
		reflect.TypeFor[map[string]sidecar.Token](), reflect.TypeFor[Origin](), reflect.TypeFor[Feed](),
		reflect.TypeFor[postgres.FeedConfig]():
		return true
	}
	return reflect.PointerTo(t).Implements(reflect.TypeFor[loader.OriginConfig]())
}
