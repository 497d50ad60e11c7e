package configfile

import (
	"strings"
	"testing"
)

// TestEveryBoundHasALine checks that a value that is out of bounds is found at its line,
// for each setting that flags can give.
func TestEveryBoundHasALine(t *testing.T) {
	for key, value := range map[string]string{
		"node": "'a b'", "l1_size": "1", "l2_size": "1", "max_value": "2TiB", "buffer_size": "1", "max_namespaces": "999",
		"max_connections": "-1", "request_timeout": "2h", "bind": "x", "cluster": "'a b'", "partition_policy": "x", "voters": "[a]",
		"cluster_key_file": "/no/such", "tls": "{key: /k}", "max_staleness": "1h", "max_clock_skew": "1h", "http": "x", "http_hosts": "[a/b]",
		"http_token_file": "/no/such", "admin_group": "no-such-group", "log_format": "x", "log_level": "x", "join": "[x]",
	} {
		cfg, err := parsed([]byte("\n\n" + key + ": " + value + "\n"))
		if err != nil {
			t.Fatal(key, err)
		}
		list := cfg.FindProblems()
		if len(list) == 0 || list[0].Line != 3 || !strings.HasPrefix(list[0].Setting, key) {
			t.Errorf("%s: %+v", key, list)
		}
	}
}

// TestSettingOf checks which setting a message names.
func TestSettingOf(t *testing.T) {
	for text, want := range map[string]string{
		"l2_size 1 B: give more":                             "l2_size",
		"namespace a.b: quota 1 B":                           "namespaces.a.b.quota",
		`namespace "A b": a name is`:                         "namespaces.A b",
		"namespace a: limits.breaker.open 1h: give":          "namespaces.a.limits.breaker.open",
		"namespace a: origin.http: url: it has":              "namespaces.a.origin.http.url",
		"namespace a: origin.http: header_files: A-B /x: no": "namespaces.a.origin.http.header_files",
		"namespace a: origin: http and exec are given":       "namespaces.a.origin.http",
		"access: users: read: no":                            "access.users.read",
		"access: namespace x is reserved":                    "access",
		"tokens: a.b: file /x: no":                           "tokens.a.b.file",
		"tls.cert /x: no":                                    "tls.cert",
		"301 namespaces are configured":                      "",
		"":                                                   "",
		"namespace ":                                         "",
	} {
		if got := settingOf(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// FuzzSettingOf checks that any message is taken.
func FuzzSettingOf(f *testing.F) {
	for _, seed := range []string{"l2_size 1 B: give", "namespace \"a\\\"\": origin.http: url: x", "access: a.b: read: x", "tls.cert: : "} {
		f.Add(seed, "a: {b.c: 1, b: {c: 2}}")
	}
	f.Fuzz(func(t *testing.T, text, file string) {
		path := settingOf(text)
		cfg, err := parsed([]byte(file))
		if line, found := cfg.sources.line(path); line < 0 || !within(path, found) && found != "" {
			t.Errorf("%q: line %d, %q, %v", path, line, found, err)
		}
	})
}
