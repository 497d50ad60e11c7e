package sidecar

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
)

// Texts of values in Changes that stand for more than themselves.
const (
	noValue      = "none"
	defaultValue = "default"
	givenValue   = "given"
)

// maxChangeText bounds a value in Changes, in bytes.
const maxChangeText = 100

// differences finds the settings in which two configurations differ: those that Apply
// puts into effect, or those that need a restart. Which ones these are is said by the tag
// reload of a field: "yes" or "restart" holds for the field and all that is in it.
type differences struct {
	restart bool                     // the ones that need a restart
	hide    func(text string) string // takes secrets out of a text
	found   []cachesidecar.Change
}

// between lists the differences of two configurations with all defaults.
func (d differences) between(a, b *Config) []cachesidecar.Change {
	d.compare("", true, reflect.ValueOf(*a), reflect.ValueOf(*b))
	return d.found
}

// add notes that a setting differs.
func (d *differences) add(path string, restart bool, from, to string) {
	if restart == d.restart {
		d.found = append(d.found, cachesidecar.Change{Setting: path, From: d.shown(from), To: d.shown(to)})
	}
}

// shown returns a value as people may see it.
func (d *differences) shown(text string) string {
	if text = logs.Plain(d.hide(text)); len(text) > maxChangeText {
		text = strings.ToValidUTF8(text[:maxChangeText], "") + "…"
	}
	return text
}

// compare compares two values of one type. restart is whether the setting that they
// belong to needs a restart.
func (d *differences) compare(path string, restart bool, a, b reflect.Value) {
	switch {
	case a.Kind() == reflect.Struct:
		d.fields(path, restart, a, b)
	case a.Kind() == reflect.Map:
		d.entries(path, restart, a, b)
	case a.Kind() == reflect.Interface:
		d.origins(path, restart, a, b)
	case a.Kind() == reflect.Pointer && a.Type().Elem().Kind() == reflect.Struct:
		if a.IsNil() || b.IsNil() {
			if a.IsNil() != b.IsNil() {
				d.add(path, restart, givenOr(!a.IsNil()), givenOr(!b.IsNil()))
			}
			return
		}
		d.compare(path, restart, a.Elem(), b.Elem())
	case !reflect.DeepEqual(a.Interface(), b.Interface()):
		name := path[strings.LastIndexByte(path, '.')+1:]
		d.add(path, restart, textOf("", name, a), textOf("", name, b))
	}
}

func (d *differences) fields(path string, restart bool, a, b reflect.Value) {
	for i := range a.NumField() {
		f := a.Type().Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		needs := restart
		switch f.Tag.Get("reload") {
		case "yes":
			needs = false
		case "restart":
			needs = true
		}
		if name == "-" {
			name = f.Tag.Get("setting")
		}
		switch {
		case options == "inline", f.Type == reflect.TypeFor[loader.FeedConfig]():
			d.compare(path, needs, a.Field(i), b.Field(i))
		case name != "":
			d.compare(strings.TrimPrefix(path+"."+name, "."), needs, a.Field(i), b.Field(i))
		}
	}
}

// entries compares maps. Of an entry that only one of them has, the settings in it that
// need a restart are named too.
func (d *differences) entries(path string, restart bool, a, b reflect.Value) {
	names := map[string]bool{}
	for _, m := range []reflect.Value{a, b} {
		for _, key := range m.MapKeys() {
			names[key.String()] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		was, is := a.MapIndex(reflect.ValueOf(name)), b.MapIndex(reflect.ValueOf(name))
		at := path + "." + name
		zero := reflect.Zero(a.Type().Elem())
		switch {
		case was.IsValid() && is.IsValid() && zero.Kind() == reflect.String:
			if was.String() != is.String() {
				of := path[strings.LastIndexByte(path, '.')+1:]
				d.add(at, restart, textOf(of, name, was), textOf(of, name, is))
			}
			continue
		case was.IsValid() && is.IsValid():
			d.compare(at, restart, was, is)
			continue
		case is.IsValid():
			d.add(at, restart, noValue, givenValue)
			was = zero
		default:
			d.add(at, restart, givenValue, noValue)
			is = zero
		}
		if d.restart && !restart && zero.Kind() == reflect.Struct {
			d.compare(at, restart, was, is)
		}
	}
}

// origins compares the origins of a namespace, and feeds of changes.
func (d *differences) origins(path string, restart bool, a, b reflect.Value) {
	kind := func(v reflect.Value) string {
		if c, ok := v.Interface().(interface{ Kind() string }); ok {
			return c.Kind()
		}
		return noValue
	}
	was, is := kind(a), kind(b)
	if was != is {
		d.add(path, restart, was, is)
		return
	}
	if was == noValue {
		return
	}
	x, y := reflect.Indirect(a.Elem()), reflect.Indirect(b.Elem())
	before := len(d.found)
	if x.Type() == y.Type() && x.Kind() == reflect.Struct {
		d.compare(path+"."+was, restart, x, y)
	}
	if len(d.found) == before && !reflect.DeepEqual(a.Interface(), b.Interface()) { // code of the program
		d.add(path, restart, was, "another "+is)
	}
}

func givenOr(given bool) string {
	if given {
		return givenValue
	}
	return noValue
}

// textOf returns a value of a setting as a text, without secrets. of and name are those of
// settings.Masked.
func textOf(of, name string, v reflect.Value) string {
	switch {
	case v.Kind() == reflect.Pointer && v.IsNil():
		return defaultValue
	case v.Kind() == reflect.Pointer && v.Elem().IsZero():
		return fmt.Sprint(v.Elem().Interface())
	case v.Kind() == reflect.Pointer:
		return textOf(of, name, v.Elem())
	case v.Kind() == reflect.Slice:
		var list []string
		for i := range v.Len() {
			list = append(list, fmt.Sprint(v.Index(i).Interface()))
		}
		return cmp.Or(strings.Join(settings.MaskedList(name, list), ", "), noValue)
	case v.Kind() == reflect.String:
		if v.String() == "" {
			return noValue
		}
		return settings.Masked(of, name, v.String())
	}
	switch x := v.Interface().(type) {
	case time.Duration:
		return settings.TimeText(x)
	case Size:
		if x != 0 {
			return x.Text()
		}
	}
	if v.IsZero() && v.Kind() != reflect.Bool {
		return defaultValue
	}
	return fmt.Sprint(v.Interface())
}
