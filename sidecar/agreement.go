package sidecar

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
)

// Hosts whose settings differ may answer differently, and tell each other. A setting that changes an answer
// has the tag answers:"yes"; of a URL, answers:"path", the host's name and the values of parameters do not count,
// and of a list, answers:"set", the order does not. Limits, quotas,
// addresses and secrets have no such tag: nothing of them leaves the host. The tag default has the text of
// a default that only the origin itself sets.

// digests returns the digests of the settings that change an answer. All defaults are set.
func (c *Config) digests() cluster.Digests {
	d := cluster.Digests{"": map[string]uint64{}, cluster.OtherNamespaces: map[string]uint64{}}
	digestFields(d[""], "", reflect.ValueOf(*c))
	if c.Memcached == "" { // its settings change no answer then
		delete(d[""], "memcached_namespace")
		delete(d[""], "memcached_delimiter")
	}
	d[""]["changes"] = digest("changes", strings.Join(slices.Sorted(maps.Keys(c.Feeds)), " "))
	digestFields(d[cluster.OtherNamespaces], "", reflect.ValueOf(Namespace{}.withDefaults()))
	for name, ns := range c.Namespaces {
		of := map[string]uint64{}
		digestFields(of, "", reflect.ValueOf(ns.withDefaults()))
		d[cluster.NamespacePrefix+name] = of
	}
	for name, feed := range c.Feeds {
		of := map[string]uint64{}
		digestFields(of, "", reflect.ValueOf(feed))
		d[cluster.FeedPrefix+name] = of
	}
	return d
}

// digestFields adds the digests of the settings in a struct.
func digestFields(of map[string]uint64, prefix string, v reflect.Value) {
	for f, v := range v.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "-" {
			name = f.Tag.Get("setting")
		}
		answers := f.Tag.Get("answers")
		if options == "inline" {
			digestFields(of, prefix, v)
			continue
		}
		if answers == "" {
			continue
		}
		name = prefix + name
		switch {
		case f.Type.Kind() == reflect.Interface:
			digestKind(of, name, v)
		case f.Type.Kind() == reflect.Pointer && f.Type.Elem().Kind() == reflect.Struct:
			of[name] = digest(name, givenOr(!v.IsNil()))
			if !v.IsNil() {
				digestFields(of, name+".", v.Elem())
			}
		case f.Type.Kind() == reflect.Map:
			of[name] = digest(name, strings.Join(entriesOf(v), "\n"))
		default:
			text := textOf("", name[strings.LastIndexByte(name, '.')+1:], v)
			if standard := f.Tag.Get("default"); standard != "" && v.IsZero() {
				text = standard
			}
			switch answers {
			case "path":
				text = withoutHost(text)
			case "set":
				text = sorted(text)
			}
			of[name] = digest(name, text)
		}
	}
}

// digestKind adds the digests of an origin, or of the source of a feed: an empty name is that of its kind.
func digestKind(of map[string]uint64, name string, v reflect.Value) {
	kind := noValue
	if c, ok := v.Interface().(interface{ Kind() string }); ok {
		kind = c.Kind()
	}
	if name != "" {
		of[name] = digest(name, kind)
		name += "."
	}
	if s := reflect.Indirect(v.Elem()); kind != noValue && s.Kind() == reflect.Struct {
		digestFields(of, name+kind+".", s)
	}
}

// entriesOf returns the entries of a map of structs as texts, in their order.
func entriesOf(v reflect.Value) (list []string) {
	for key, value := range v.Seq2() {
		of := map[string]uint64{}
		digestFields(of, "", value)
		line := key.String()
		for _, name := range slices.Sorted(maps.Keys(of)) {
			line += " " + string(binary.BigEndian.AppendUint64(nil, of[name]))
		}
		list = append(list, line)
	}
	slices.Sort(list)
	return list
}

// withoutHost returns the path of a URL and the names of its parameters, whose values may be secrets.
func withoutHost(text string) string {
	_, rest, _ := strings.Cut(text, "://")
	path, query, _ := strings.Cut(rest[max(0, strings.IndexAny(rest+"/", "/?")):], "?")
	return path + paramValue.ReplaceAllString("?"+query, "$1=")
}

var paramValue = regexp.MustCompile(`([?&;][^=&;]*)=[^&;]*`)

// sorted returns the text of a list in the order of its elements.
func sorted(text string) string {
	list := strings.Split(text, ", ")
	slices.Sort(list)
	return strings.Join(list, ", ")
}

// digest returns 8 bytes that are never zero.
func digest(name, text string) uint64 {
	d := sha256.Sum256([]byte(name + "\x00" + text))
	return max(1, binary.BigEndian.Uint64(d[:]))
}
