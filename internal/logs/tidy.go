package logs

import (
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"unicode/utf8"
)

// maxValue is the highest length of a value in a line, in bytes.
const maxValue = 1024

// tidy folds a value to one line of limited length, writes durations in readable form,
// and drops empty values.
func tidy(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value; v.Kind() {
	case slog.KindString:
		a.Value = text(v.String())
	case slog.KindDuration:
		a.Value = slog.StringValue(v.Duration().String())
	case slog.KindAny:
		if empty(v.Any()) {
			return slog.Attr{}
		}
		switch x := v.Any().(type) {
		case error:
			a.Value = text(x.Error())
		case fmt.Stringer:
			a.Value = text(x.String())
		case []byte:
			a.Value = text(string(x[:min(len(x), 2*maxValue)]))
		default:
			if s := reflect.ValueOf(x); s.Kind() == reflect.String {
				a.Value = text(s.String())
			}
		}
	}
	if a.Value.Kind() == slog.KindString && a.Value.String() == "" {
		return slog.Attr{}
	}
	return a
}

func text(s string) slog.Value { return slog.StringValue(oneLine(short(s))) }

// short cuts a text that is longer than maxValue.
func short(s string) string {
	if len(s) <= maxValue {
		return s
	}
	n := maxValue
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return fmt.Sprintf("%s… (%d bytes)", s[:n], len(s))
}

func empty(v any) bool {
	if v == nil {
		return true
	}
	switch r := reflect.ValueOf(v); r.Kind() {
	case reflect.Pointer, reflect.Interface, reflect.Func, reflect.Chan:
		return r.IsNil()
	case reflect.Slice, reflect.Map:
		return r.Len() == 0
	}
	return false
}

const lineEnds = "\n\r\v\f\u0085\u2028\u2029"

// oneLine joins the lines of a text with "; ".
func oneLine(s string) string {
	if !strings.ContainsAny(s, lineEnds) {
		return s
	}
	var lines []string
	for line := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune(lineEnds, r) }) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}
