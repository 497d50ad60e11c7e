package main

import (
	"math"
	"slices"
	"strings"

	"github.com/xrash/smetrics"
)

// otherCommands are words that other caches and services use, each with what is used here
// instead.
var otherCommands = map[string]string{
	"add":        `"cachesidecar set --add"`,
	"benchmark":  `"cachesidecar bench"`,
	"cas":        `"cachesidecar set --cas"`,
	"check":      `"cachesidecar config check"`,
	"clear":      `"cachesidecar flush"`,
	"cluster":    `"cachesidecar members"`,
	"daemon":     `"cachesidecar run"`,
	"dbsize":     `"cachesidecar stats"`,
	"decr":       `"cachesidecar incr KEY -1"`,
	"decrby":     `"cachesidecar incr KEY -N"`,
	"exists":     `"cachesidecar ttl", which ends with status 1 if a key has no value`,
	"expire":     `"cachesidecar touch --ttl TIME"`,
	"flush_all":  `"cachesidecar flush"`,
	"flushall":   `"cachesidecar flush"`,
	"flushdb":    `"cachesidecar flush --ns NAMESPACE"`,
	"hotkeys":    `"cachesidecar hot"`,
	"htop":       `"cachesidecar top"`,
	"incrby":     `"cachesidecar incr KEY N"`,
	"info":       `"cachesidecar stats"`,
	"invalidate": `"cachesidecar del"`,
	"meta":       `"cachesidecar get --json"`,
	"metrics":    `"cachesidecar stats"`,
	"monitor":    `"cachesidecar watch"`,
	"mset":       `"cachesidecar set", once for each key`,
	"nodes":      `"cachesidecar members"`,
	"peers":      `"cachesidecar members"`,
	"persist":    `"cachesidecar touch --ttl 0"`,
	"pttl":       `"cachesidecar ttl --json"`,
	"purge":      `"cachesidecar flush"`,
	"put":        `"cachesidecar set"`,
	"ready":      `"cachesidecar health"`,
	"remove":     `"cachesidecar del"`,
	"replace":    `"cachesidecar set --replace"`,
	"scan":       `"cachesidecar keys"`,
	"select":     `--ns NAMESPACE behind a command`,
	"serve":      `"cachesidecar run"`,
	"server":     `"cachesidecar run"`,
	"setex":      `"cachesidecar set --ttl TIME"`,
	"setnx":      `"cachesidecar set --add"`,
	"shutdown":   stopped,
	"start":      `"cachesidecar run"`,
	"stat":       `"cachesidecar stats"`,
	"status":     `"cachesidecar health"`,
	"stop":       stopped,
	"subscribe":  `"cachesidecar watch"`,
	"unlink":     `"cachesidecar del"`,
	"validate":   `"cachesidecar config check"`,
}

// stopped says how a sidecar ends.
const stopped = `SIGTERM: "cachesidecar stats" shows the process's pid`

// otherFlags are names that other programs give to flags, each with those used here.
var otherFlags = map[string][]string{
	"address": {"socket", "bind"}, "addr": {"socket", "bind"}, "all": {"cluster"},
	"ex": {"ttl"}, "exp": {"ttl"}, "expire": {"ttl"}, "expiry": {"ttl"}, "f": {"config"}, "file": {"config"},
	"force": {"yes"}, "format": {"json", "log-format"}, "host": {"socket", "bind"}, "j": {"json"},
	"listen": {"socket", "bind"}, "memory": {"l2-size"}, "maxmemory": {"l2-size"}, "n": {"ns", "count"},
	"name": {"node"}, "namespace": {"ns"}, "nx": {"add"}, "o": {"out", "json"}, "output": {"out", "json"},
	"port": {"socket", "bind"}, "s": {"socket"}, "t": {"timeout", "ttl"}, "token": {"token-file"}, "xx": {"replace"},
}

// nearestFlag returns the name of the flag that is probably meant; "" if there is none.
func nearestFlag(word string, names []string) string {
	for _, name := range otherFlags[strings.ToLower(word)] {
		if slices.Contains(names, name) {
			return name
		}
	}
	return nearest(word, names)
}

// dashed returns a flag with its dashes.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

// nearest returns the name that a misspelt word is probably meant to be: the one at the
// least distance, which is at most a third of the word's length, rounded up; of several
// ones that which begins alike. It returns "" if there is none. The library cli suggests
// something for every word, however far the nearest name is.
func nearest(word string, names []string) (best string) {
	word = strings.ToLower(word)
	least, most := math.MaxInt, 0.0
	for _, name := range names {
		d := distance(name, word)
		if d > (len(word)+2)/3 || d >= len(name) || d > least {
			continue
		}
		if like := smetrics.JaroWinkler(name, word, 0.7, 4); d < least || like > most {
			best, least, most = name, d, like
		}
	}
	return best
}

// distance returns how many letters are missing, too many or wrong. Two neighbours in the
// wrong order count as one.
func distance(a, b string) int {
	if len(a) == len(b) {
		for i := range len(a) - 1 {
			if a[:i] == b[:i] && a[i] == b[i+1] && a[i+1] == b[i] && a[i] != b[i] && a[i+2:] == b[i+2:] {
				return 1
			}
		}
	}
	return smetrics.WagnerFischer(a, b, 1, 1, 1)
}
