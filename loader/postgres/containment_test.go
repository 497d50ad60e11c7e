package postgres

import (
	"errors"
	"regexp"
	"strings"
	"testing"
)

func TestOutside(t *testing.T) {
	for _, tc := range []struct {
		in   []string
		want string // matched, outside of the last one; "-": there is none
	}{
		{[]string{`[0-9]+`, `0|[1-9][0-9]*`}, "00"},
		{[]string{`[1-9][0-9]*`, `0|-?[1-9][0-9]*`}, "-"},
		{[]string{`^[1-9]\d{0,18}$`, `0|-?[1-9][0-9]*`}, "-"},
		{[]string{`(?i)[a-f]`, `[a-f]`}, "A"},
		{[]string{`(?i)k`, `[kK]`}, "\u212a"},      // the sign of Kelvin
		{[]string{`.*`, `(?s:.+)`, `[^\n]+`}, "-"}, // a dot is no newline
		{[]string{`(?s).`, `[^\n]`}, "\n"},
		{[]string{`a|b`, `[0-9]+`, `x`}, "-"}, // nothing matches both
		{[]string{`n:.*|u:[0-9]+`, `u:.*`, `u:(0|[1-9][0-9]*)`}, "u:00"},
		{[]string{`\b[0-9]+\b`, `0|[1-9][0-9]*`}, "00"},
		{[]string{`a\b[a-z]`, `x`}, "-"},
		{[]string{``, `a`}, ""},
		{[]string{`[a-z]{0,70}`, `.{0,63}`}, strings.Repeat("a", 64)},
	} {
		got, found, err := outside(tc.in...)
		if !found {
			got = "-"
		}
		if err != nil || got != tc.want {
			t.Errorf("%q: %q, %v, want %q", tc.in, got, err, tc.want)
		}
	}
	if _, _, err := outside(`(.*a.{900})`, `(.*b.{900})`); !errors.Is(err, errIntricate) {
		t.Errorf("an intricate pattern: %v", err)
	}
	if _, _, err := outside(`(`, `a`); err == nil {
		t.Error("a wrong pattern was taken")
	}
}

// FuzzOutside holds what is found to package regexp.
func FuzzOutside(f *testing.F) {
	f.Add(`[0-9]+`, `0|[1-9][0-9]*`, "00")
	f.Add(`(?i)ab*\b`, `^[a-b]+$`, "aB")
	f.Add(`(a|bc){2,3}.`, `\pL+`, "abca")
	f.Add(`(?m)^a$\n?`, `a`, "a\n")
	f.Fuzz(func(t *testing.T, a, b, text string) {
		if len(a)+len(b) > 30 {
			return
		}
		ra, errA := regexp.Compile(`\A(?:` + a + `)\z`)
		rb, errB := regexp.Compile(`\A(?:` + b + `)\z`)
		_, aloneA := regexp.Compile(a)
		_, aloneB := regexp.Compile(b)
		if errors.Join(errA, errB, aloneA, aloneB) != nil {
			return
		}
		got, found, err := outside(a, b)
		switch {
		case err != nil: // too intricate
		case found && (!ra.MatchString(got) || rb.MatchString(got)):
			t.Errorf("%q is to match %q alone, not %q", got, a, b)
		case !found && !strings.Contains(text, "\x00") && ra.MatchString(text) && !rb.MatchString(text):
			t.Errorf("%q matches %q alone, not %q, and nothing is found", text, a, b)
		}
	})
}
