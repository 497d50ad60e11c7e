package configfile

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/sidecar"
)

func TestMasked(t *testing.T) {
	for _, tc := range []struct {
		name        string
		value, want any
	}{
		{"url", "http://h:80/{key}", "http://h:80/{key}"},
		{"url", "http://u:p@h:80/{key}", "http://u:(hidden)@h:80/{key}"},
		{"x", "host=h password=abc user=u", "host=h password=(hidden) user=u"},
		{"password_file", "/a", "/a"}, {"dsn_env", "USERS", "USERS"}, {"X-Auth-Token", "abc", "(hidden)"}, {"header_files.Authorization", "/etc/a", "/etc/a"},
		{"headers.X-Api-Key", "/9j4AA", "(hidden)"}, {"url", "http://h/{key}?v=1&api_key=abc", "http://h/{key}?v=1&api_key=(hidden)"},
		{"x", "password='a b@c' user=u", "password=(hidden) user=u"},
		{"env", []string{"A=b", "API_KEY=c", "B"}, []string{"A=b", "API_KEY=(hidden)", "B"}}, {"keys", 7, 7},
		{"command", []string{"get", "--token", "abc", "--api-key=abc", "--as", "b=c"}, []string{"get", "--token", "(hidden)", "--api-key=(hidden)", "--as", "b=c"}},
	} {
		if got := masked(strings.Split(tc.name, "."), tc.value); !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: %v: %v, want %v", tc.name, tc.value, got, tc.want)
		}
	}
}

// FuzzScalar checks that YAML reads back what scalar writes, on one line.
func FuzzScalar(f *testing.F) {
	for _, seed := range []string{"", "off", "0660", "a: b # c", "\n", "ü\u0007", "'", `"`, "~", "1e3", "<<", "- a"} {
		f.Add(seed, int64(len(seed)))
	}
	f.Fuzz(func(t *testing.T, text string, size int64) {
		line := "node: " + scalar(text) + " # c\nvoters: " + scalar([]string{text}) + " # c\n"
		cfg, err := parsed([]byte(line))
		if text = string([]rune(text)); err != nil || cfg.Node != text || cfg.Voters[0] != text || strings.Count(line, "\n") != 2 {
			t.Errorf("%q: %q, %v, %q", text, line, err, cfg.Node)
		}
		var back sidecar.Size
		if s := sidecar.Size(max(size, 0) & (1<<62 - 1)); s < 1<<50 && (back.Set(s.Text()) != nil || back != s) {
			t.Errorf("%d is written as %s, and reads back as %d", s, s.Text(), back)
		}
		if d := time.Duration(max(size, 0)); strings.Contains(plainValue(reflect.ValueOf(d)).(string), " ") {
			t.Errorf("%v", d)
		}
	})
}

// TestScalarEscapes checks that a character above U+FFFF that cannot be printed is no pair
// of surrogates, which YAML does not know.
func TestScalarEscapes(t *testing.T) {
	if got, want := scalar("a\U000da4d3\u0007"), `"a\U000da4d3\u0007"`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
