package loader

import (
	"errors"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func TestKeys(t *testing.T) {
	for _, tc := range []struct {
		name, pattern string
		maxLen        int
		key           string
		ok            bool
	}{
		{"any", "", 0, "a/b c\n", true},
		{"empty", "", 0, "", false},
		{"longest", "", 0, strings.Repeat("a", 1024), true},
		{"too long", "", 0, strings.Repeat("a", 1025), false},
		{"too long here", "", 3, "abcd", false},
		{"matches", `user:\d+`, 0, "user:17", true},
		{"only a part", `user:\d+`, 0, "user:17;drop", false},
		{"a line is not the whole", `user:\d+`, 0, "user:17\nx", false},
		{"alternatives are held together", `a|b`, 0, "ax", false},
	} {
		k, err := NewKeys(tc.pattern, tc.maxLen)
		testenv.Must(t, err)
		if err := k.Check([]byte(tc.key)); (err == nil) != tc.ok || err != nil && !errors.Is(err, ErrBadKey) {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
	for _, tc := range []struct {
		pattern string
		maxLen  int
	}{{"(", 0}, {"a)|(b", 0}, {"", -1}, {"", 1025}} {
		if _, err := NewKeys(tc.pattern, tc.maxLen); err == nil {
			t.Errorf("%q, %d was taken", tc.pattern, tc.maxLen)
		}
	}
}
