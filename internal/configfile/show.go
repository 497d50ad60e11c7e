package configfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// ShownSetting is a setting with its effective value.
type ShownSetting struct {
	Setting string `json:"setting"`
	Value   any    `json:"value"`
	Source  string `json:"source"`

	path []string
}

// ListSettings returns the settings that a sidecar would have, in the order of the file. The
// error joins what is wrong with them.
func (file File) ListSettings(terminal bool) (list []ShownSetting, err error) {
	o, e := file.LogOptions(terminal)
	file.LogLevel, file.LogFormat = strings.ToLower(o.Level.Level().String()), "json"
	if o.Text {
		file.LogFormat = "text"
	}
	file.Config, err = file.Effective()
	inFile := map[string]Namespace{}
	for name, ns := range file.Namespaces {
		inFile[name] = Namespace{ns, file.InFile[name].Origin}
	}
	file.InFile = inFile
	return file.sources.shown(nil, reflect.ValueOf(file)), errors.Join(e, err)
}

// shown returns the settings in a value, those that have a value themselves. Those of the sidecar itself are in the
// list in any case.
func (s *sources) shown(path []string, v reflect.Value) (list []ShownSetting) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range settingsIn(v) {
			if len(path) == 0 || !f.value.IsZero() {
				list = append(list, s.shown(append(slices.Clip(path), f.key), reflect.Indirect(f.value))...)
			}
		}
		return list
	case reflect.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, key := range keys {
			list = append(list, s.shown(append(slices.Clip(path), key.String()), v.MapIndex(key))...)
		}
		return list
	}
	key, value := strings.Join(path, "."), plainValue(v)
	one := ShownSetting{Setting: key, Value: masked(path, value), Source: s.of(key), path: path}
	if !reflect.DeepEqual(value, one.Value) {
		one.Source += ", a secret is hidden"
	}
	return []ShownSetting{one}
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
		return settings.MaskedList(name, v)
	}
	return value
}

// YAML returns settings as a configuration file, each with its source behind it.
func YAML(list []ShownSetting) string {
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
