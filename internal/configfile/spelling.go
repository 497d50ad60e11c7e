package configfile

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/xrash/smetrics"

	"github.com/cachesidecar/cachesidecar/loader"
)

// foreign maps the names that a setting has in Redis, memcached and other caches, without their dashes and
// underlines, to the settings that are meant.
var foreign = map[string][]string{
	"ttl": {"default_ttl", "store_ttl"}, "expire": {"default_ttl", "store_ttl"}, "expiry": {"default_ttl"},
	"expiration": {"default_ttl"}, "expireafterwrite": {"default_ttl"}, "expires": {"default_ttl"},
	"lifetime": {"default_ttl"}, "maxage": {"default_ttl", "max_age"}, "maxttl": {"default_ttl"},
	"emptyttl": {"negative_ttl"}, "missttl": {"negative_ttl"}, "grace": {"stale_if_error"},
	"maxmemory": {"quota", "l2_size"}, "memory": {"quota", "l2_size"}, "memorylimit": {"quota", "l2_size"},
	"maxbytes": {"quota", "l2_size"}, "maxsize": {"quota", "l2_size"}, "size": {"quota", "l2_size"},
	"cachesize": {"quota", "l2_size"}, "limitmaxbytes": {"quota", "l2_size"}, "capacity": {"quota", "l2_size"},
	"maxvaluesize": {"max_value"}, "maxitemsize": {"max_value"}, "itemsizemax": {"max_value"},
	"maxkeysize": {"max_key"}, "maxkeylength": {"max_key"},
	"port":    {"address", "servers", "dsn_file", "url", "socket", "memcached", "bind"},
	"addr":    {"address", "servers", "dsn_file", "url", "socket", "memcached", "bind"},
	"address": {"servers", "dsn_file", "url", "socket", "memcached", "bind"}, "listen": {"socket", "memcached", "bind"},
	"host": {"address", "servers", "dsn_file", "url", "node"}, "hostname": {"node"}, "name": {"node"},
	"unixsocket":     {"socket"},
	"unixsocketperm": {"socket_mode"}, "perm": {"socket_mode"}, "group": {"socket_group"},
	"peers": {"join"}, "hosts": {"join"}, "seeds": {"join"}, "nodes": {"join"}, "members": {"join"},
	"server": {"servers", "address", "join"}, "servers": {"address", "join"},
	"password": {"password_file", "password_env", "tokens"}, "requirepass": {"tokens"}, "auth": {"tokens"},
	"dsn": {"dsn_file", "dsn_env"}, "connectionstring": {"dsn_file"}, "url": {"dsn_file", "address", "servers"},
	"sql": {"query"}, "user": {"username"}, "database": {"db"}, "prefix": {"key_prefix"}, "poolsize": {"connections"},
	"maxconnections": {"connections"}, "endpoint": {"url", "address"}, "metrics": {"http"}, "adminaddr": {"http"},
}

// meant returns the settings among names that a key probably means.
func meant(key string, names []string) (list []string) {
	for _, name := range foreign[strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(key))] {
		if slices.Contains(names, name) {
			list = append(list, name)
		}
	}
	if near := Nearest(key, names); len(list) == 0 && near != "" {
		list = []string{near}
	}
	return list
}

// places are the maps of settings that a key is looked for in, if it is none where it stands.
var places = []struct {
	where string
	typ   reflect.Type
}{
	{"that stands at the top of the file", reflect.TypeFor[File]()},
	{"of a namespace", reflect.TypeFor[Namespace]()},
	{"of limits", reflect.TypeFor[loader.GuardConfig]()},
}

// hint returns what a key that is no setting of a type probably means, as a question; "" if there is no telling.
func hint(key string, t reflect.Type) string {
	if list := meant(key, settingNames(t)); len(list) > 0 {
		last := len(list) - 1
		words := append(list[:max(last-1, 0):max(last-1, 0)], strings.Join(list[max(last-1, 0):], " or "))
		return fmt.Sprintf("did you mean %s?", strings.Join(words, ", "))
	}
	for _, p := range places {
		names := settingNames(p.typ)
		if slices.Contains(names, key) {
			return fmt.Sprintf("did you mean the setting %s?", p.where)
		}
		if list := meant(key, names); p.typ != t && len(list) > 0 && foreign[key] != nil {
			return fmt.Sprintf("did you mean %s, a setting %s?", list[0], p.where)
		}
	}
	return ""
}

// Nearest returns the name that a misspelt word is probably meant to be; "" if none is like it.
func Nearest(word string, names []string) (best string) {
	word = strings.ToLower(word)
	most := 0.0
	for _, name := range names {
		least := 0.75 // of 1
		if name != "" && !strings.HasPrefix(word, name[:1]) {
			least = 0.85 // few slips concern the first letter: nosuch is no touch
		}
		part := strings.Contains(word, "_") && len(word) > len(name)+3 // headers_env is no misspelt headers
		like := likeness(word, name)
		if a, b := ownPart(word, name); a != word {
			part = part || likeness(a, b) < least // max_memory is no misspelt max_key
		}
		if like > max(least, most) && len(name) > 1 && !part {
			best, most = name, like
		}
	}
	return best
}

func likeness(a, b string) float64 { return smetrics.JaroWinkler(b, a, 0.7, 4) }

// ownPart returns what two names have behind the words that both begin with.
func ownPart(a, b string) (restA, restB string) {
	for {
		first, restA, okA := strings.Cut(a, "_")
		second, restB, okB := strings.Cut(b, "_")
		if !okA || !okB || first != second {
			return a, b
		}
		a, b = restA, restB
	}
}

// tabIn returns the line of the first tab that stands where YAML wants spaces; 0 if there is none.
func tabIn(text []byte) (line int) {
	for l := range bytes.Lines(text) {
		line++
		blank := l[:len(l)-len(bytes.TrimLeft(l, " \t"))]
		if bytes.IndexByte(blank, '\t') >= 0 && len(bytes.TrimSpace(l)) > 0 {
			return line
		}
	}
	return 0
}
