package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

func configShowCommand(p *program) *cli.Command {
	return &cli.Command{
		Name:  "show",
		Usage: "print the settings that \"run\" would have, and where each comes from",
		Description: "Takes the flags and the environment of \"run\". It asks no sidecar. The output is a " +
			"configuration file. Its last line is how much memory the process needs. Exit status 1 if something " +
			"is wrong.",
		Flags:  append(runFlags(), boolFlag("changed", "leave out what has its default"), jsonFlag),
		Action: counted(0, 0, p.showConfig),
	}
}

func (p *program) showConfig(c *cli.Context) error {
	cfg, err := runConfig(c)
	var wrong problems
	if err != nil && !errors.As(err, &wrong) {
		return err
	}
	p.warnUnknown(&cfg)
	list, err := cfg.effective(isTerminal(os.Stderr))
	for _, err := range settings.Each(err) {
		if problem := cfg.sources.place(err); !slices.ContainsFunc(wrong, problem.follows) {
			wrong = append(wrong, problem)
		}
	}
	if c.Bool("changed") {
		list = slices.DeleteFunc(list, func(s shownSetting) bool { return s.Source == "default" })
	}
	need, _ := cfg.Memory() // what is wrong is in the list
	text := yamlOf(list) + fmt.Sprintf("# Such a process needs %d MiB of memory at most: MemoryMax=, or a container's "+
		"limit.\n", (need+1<<20-1)>>20)
	if err := p.show(c, list, text); err != nil {
		return err
	}
	wrong.sort()
	return wrong.orNil()
}

// shownSetting is a setting with its effective value.
type shownSetting struct {
	Setting string `json:"setting"`
	Value   any    `json:"value"`
	Source  string `json:"source"`

	path []string
}

// effective returns the settings that a sidecar would have, in the order of the file. The
// error joins what is wrong with them.
func (c fileConfig) effective(terminal bool) (list []shownSetting, err error) {
	o, e := c.logOptions(terminal)
	c.LogLevel, c.LogFormat = strings.ToLower(o.Level.Level().String()), "json"
	if o.Text {
		c.LogFormat = "text"
	}
	c.Config, err = c.Effective()
	w := shower{sources: &c.sources}
	w.fields(reflect.ValueOf(c))
	for _, name := range slices.Sorted(maps.Keys(c.Namespaces)) {
		ns := c.Namespaces[name]
		w.path = []string{"namespaces", name}
		w.fields(reflect.ValueOf(ns))
		if ns.Origin != nil {
			w.path = append(w.path, "origin", ns.Origin.Kind())
			w.fields(reflect.Indirect(reflect.ValueOf(ns.Origin)))
		}
	}
	return w.list, errors.Join(e, err)
}

// shower collects settings from the fields of structs.
type shower struct {
	sources *sources
	path    []string
	list    []shownSetting
}

// fields adds the settings of a struct that have a value. Those of the sidecar itself are
// added in any case.
func (w *shower) fields(v reflect.Value) {
	for i := range v.NumField() {
		name, options, _ := strings.Cut(v.Type().Field(i).Tag.Get("yaml"), ",")
		switch f := v.Field(i); {
		case options == "inline":
			w.fields(f)
		case name == "" || name == "-" || len(w.path) > 0 && f.IsZero():
		default:
			w.path = append(w.path, name)
			w.value(reflect.Indirect(f))
			w.path = w.path[:len(w.path)-1]
		}
	}
}

// value adds a setting, or the settings in it.
func (w *shower) value(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		w.fields(v)
		return
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			w.path = append(w.path, key.String())
			w.value(v.MapIndex(key))
			w.path = w.path[:len(w.path)-1]
		}
		return
	case reflect.Pointer, reflect.Interface:
		return
	}
	key := strings.Join(w.path, ".")
	s := shownSetting{Setting: key, Value: plainValue(v), Source: w.sources.of(key), path: slices.Clone(w.path)}
	if value := masked(w.path, s.Value); !reflect.DeepEqual(value, s.Value) {
		s.Value = value
		s.Source += ", a secret is hidden"
	}
	w.list = append(w.list, s)
}

// plainValue returns a value as JSON has it: times and sizes are texts that a file may have.
func plainValue(v reflect.Value) any {
	switch x := v.Interface().(type) {
	case time.Duration:
		return settings.TimeText(x)
	case sidecar.Size:
		return x.Text()
	case fmt.Stringer:
		return x.String()
	case []string:
		return append([]string{}, x...)
	}
	if v.Kind() == reflect.String {
		return v.String()
	}
	return v.Interface()
}

// masked returns the value of a setting without secrets.
func masked(path []string, value any) any {
	name, of := path[len(path)-1], ""
	if len(path) > 1 {
		of = path[len(path)-2]
	}
	switch v := value.(type) {
	case string:
		return settings.Masked(of, name, v)
	case []string:
		list := make([]string, len(v))
		for i, text := range v {
			list[i] = settings.MaskedPart(name, text)
		}
		return list
	}
	return value
}

// yamlOf returns settings as a configuration file, each with its source behind it.
func yamlOf(list []shownSetting) string {
	var text strings.Builder
	var before []string
	for _, s := range list {
		same := 0
		for same < len(s.path)-1 && same < len(before)-1 && s.path[same] == before[same] {
			same++
		}
		for ; same < len(s.path); same++ {
			text.WriteString(strings.Repeat("  ", same) + scalar(s.path[same]) + ":")
			if same < len(s.path)-1 {
				text.WriteString("\n")
			}
		}
		fmt.Fprintf(&text, " %s # %s\n", scalar(s.Value), logs.Plain(s.Source))
		before = s.path
	}
	return text.String()
}

// scalar returns a value on one line, as YAML has it.
func scalar(value any) string {
	if text, ok := value.(string); ok {
		if b, err := yaml.Marshal(text); err == nil && bytes.Count(b, []byte("\n")) == 1 && logs.Plain(text) == text {
			return strings.TrimSuffix(string(b), "\n")
		}
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(value) // texts, numbers and lists of them
	return escaped(strings.TrimSuffix(b.String(), "\n"))
}

// escaped writes what cannot be printed as YAML's escapes. It differs from JSON's for high
// characters: YAML knows no pairs of surrogates.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}
