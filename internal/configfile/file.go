// Package configfile reads the settings of `run` from a configuration file, the environment and flags, in this order,
// and says of all that is wrong where it stands.
//
// Input is a file of YAML (Load, Parse) and the command line of `run` (Merge). Output is a File, whose Config a sidecar
// takes; Problems with the file and line, flag or variable that gives each setting; and the settings in effect, as
// `config show` prints them, without secrets.
//
// The package starts no goroutine. It knows the form of settings, and the kinds of origins and feeds that a file may
// have; package sidecar and the origins know what their values mean, and check them. It prints nothing itself.
package configfile

import (
	"fmt"
	"net/http"
	_ "net/http/pprof" // adds its pages to http.DefaultServeMux
	"reflect"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/logs"
	"github.com/cachesidecar/cachesidecar/internal/settings"
	"github.com/cachesidecar/cachesidecar/loader"
	"github.com/cachesidecar/cachesidecar/loader/execorigin"
	"github.com/cachesidecar/cachesidecar/loader/httporigin"
	"github.com/cachesidecar/cachesidecar/loader/memcached"
	"github.com/cachesidecar/cachesidecar/loader/postgres"
	"github.com/cachesidecar/cachesidecar/loader/redisorigin"
	"github.com/cachesidecar/cachesidecar/sidecar"
)

// File is the content of a configuration file: the settings of the sidecar and of
// the log.
type File struct {
	sidecar.Config `yaml:",inline"`

	// LogFormat is how the log is written. Form: "text" or "json". Default: "text" on a
	// terminal, else "json".
	LogFormat string `yaml:"log_format"`
	// LogLevel is the least level that is logged. Form: "debug", "info", "warn" or
	// "error". Default: "info".
	LogLevel string `yaml:"log_level" reload:"yes"`

	// InFile becomes Config.Namespaces.
	InFile map[string]Namespace `yaml:"namespaces"`
	// FeedsInFile becomes Config.Feeds.
	FeedsInFile map[string]Feed `yaml:"changes"`

	sources sources
	Wrong   Problems `yaml:"-"` // what is wrong with what was read: it counts as left out
}

// Namespace is the settings of a namespace.
type Namespace struct {
	sidecar.Namespace `yaml:",inline"`

	// Origin is where missing values are loaded from. Form: map. Default: none. Bounds: one
	// of "http", "postgres", "redis", "memcached", "exec".
	Origin *Origin `yaml:"origin"`
}

// Origin is an origin. Exactly one field is set.
type Origin struct {
	HTTP      *httporigin.Config  `yaml:"http"`
	Postgres  *postgres.Config    `yaml:"postgres"`
	Redis     *redisorigin.Config `yaml:"redis"`
	Memcached *memcached.Config   `yaml:"memcached"`
	Exec      *execorigin.Config  `yaml:"exec"`
}

// Feed is a feed of changes.
type Feed struct {
	sidecar.Feed `yaml:",inline"`

	Postgres *postgres.FeedConfig `yaml:"postgres"`
}

// newFile returns a configuration that serves Go's profiles if pprof asks for them.
func newFile() (c File) {
	c.Profiles = http.DefaultServeMux
	return c
}

// Load reads a file. The error is that this cannot be done.
func Load(path string) (File, error) {
	b, err := settings.ReadFile(path, maxConfig)
	if err != nil {
		return File{}, fmt.Errorf("config %s: %w: give the path of a file of settings that this process may read",
			path, err)
	}
	cfg := Parse(b)
	cfg.sources.file = path
	for i := range cfg.Wrong {
		cfg.Wrong[i].File = path
	}
	return cfg, nil
}

// LogOptions returns the options of the log. Default: text on a terminal, JSON elsewhere.
// What is wrong counts as left out; the error joins it.
func (file File) LogOptions(terminal bool) (o logs.Options, err error) {
	var wrong settings.Problems
	if file.LogLevel != "" && o.Level.UnmarshalText([]byte(file.LogLevel)) != nil {
		wrong.Addf("log_level", "%q: give debug, info, warn or error", file.LogLevel)
	}
	switch file.LogFormat {
	case "text":
		o.Text = true
	case "json":
	default:
		wrong.Addf("log_format", "%q: give text or json", file.LogFormat)
		fallthrough
	case "":
		o.Text = terminal
	}
	return o, wrong.Err()
}

// complete makes Config.Namespaces from the namespaces in the file. A namespace whose origin is wrong
// is left out.
func (file *File) complete() {
	for name, ns := range file.InFile {
		origin, err := ns.Origin.one()
		if err != nil {
			file.Wrong = append(file.Wrong, file.sources.place(settings.Within("namespaces."+name, err)))
			continue
		}
		if file.Namespaces == nil {
			file.Namespaces = map[string]sidecar.Namespace{}
		}
		ns.Namespace.Origin = origin
		file.Namespaces[name] = ns.Namespace
	}
	for name, f := range file.FeedsInFile {
		if f.Postgres == nil {
			err := settings.Problemf("changes."+name, ": nothing is given: give postgres, with its settings")
			file.Wrong = append(file.Wrong, file.sources.place(err))
			continue
		}
		if file.Feeds == nil {
			file.Feeds = map[string]sidecar.Feed{}
		}
		f.Source = *f.Postgres
		file.Feeds[name] = f.Feed
	}
}

// one returns the origin that is set, or nil if o is nil.
func (o *Origin) one() (given loader.OriginConfig, err error) {
	if o == nil {
		return nil, nil
	}
	for _, v := range reflect.ValueOf(*o).Fields() {
		if v.IsNil() {
			continue
		}
		one := v.Interface().(loader.OriginConfig)
		if given != nil {
			return nil, settings.Problemf("origin", ": %s and %s are given: give one of them", given.Kind(), one.Kind())
		}
		given = one
	}
	if given == nil {
		return nil, settings.Problemf("origin", ": nothing is given: give http, postgres, redis, memcached or exec, "+
			"with its settings")
	}
	return given, nil
}

// field is a key that a file may have, and the type of its setting.
type field struct {
	name string
	part string // what a message calls the map of settings that is its value
	typ  reflect.Type
}

// setting is a key that a file may have, and its value.
type setting struct {
	key   string
	value reflect.Value
}

// settingsIn returns the settings that a file may have in a struct, in their order.
func settingsIn(v reflect.Value) (list []setting) {
	for f, v := range v.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if options == "inline" {
			list = append(list, settingsIn(v)...)
		} else if name != "" && name != "-" {
			list = append(list, setting{name, v})
		}
	}
	return list
}

// fields returns the keys that a file may have for a type.
func fields(t reflect.Type) (list []field) {
	for _, s := range settingsIn(reflect.Zero(t)) {
		list = append(list, field{s.key, s.key, s.value.Type()})
	}
	return list
}

// settingNames returns the names of fields.
func settingNames(t reflect.Type) (names []string) {
	for _, f := range fields(t) {
		names = append(names, f.name)
	}
	return names
}

// mapParts are the words for an element of a setting that maps names to settings.
var mapParts = map[string]string{"namespaces": "a namespace", "access": "a namespace in access", "tokens": "a token",
	"changes": "a feed of changes", "tables": "a table"}

// member returns the setting that a key names in the value of f.
func (f field) member(key string) (field, bool) {
	t := inner(f.typ)
	switch t.Kind() {
	case reflect.Map:
		return field{key, mapParts[f.name], t.Elem()}, true
	case reflect.Struct:
	default:
		return field{}, false
	}
	for _, m := range fields(t) {
		if m.name == key {
			return m, true
		}
	}
	return field{}, false
}

// inner returns the type that a pointer type points to, or t itself.
func inner(t reflect.Type) reflect.Type {
	if t.Kind() == reflect.Pointer {
		return t.Elem()
	}
	return t
}
