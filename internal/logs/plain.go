package logs

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Plain returns a text in which everything is escaped that a terminal would not show as
// it is: control characters, line ends, marks that change the direction of writing, and
// bytes that are not UTF-8.
func Plain(s string) string {
	if strings.IndexFunc(s, unprintable) < 0 {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteString(s[i : i+n])
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += n
	}
	return b.String()
}

// Lines applies Plain to each line of a text.
func Lines(s string) string {
	list := strings.Split(s, "\n")
	for i, line := range list {
		list[i] = Plain(line)
	}
	return strings.Join(list, "\n")
}

// unprintable reports whether a rune cannot be printed. This includes the character that
// Go returns for bytes that are not UTF-8.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// JSON returns a JSON document of the same meaning with only printable characters, except
// for the spaces and line ends between its parts. encoding/json escapes ASCII control
// characters. Other unprintable characters occur only in strings, where \u escapes can
// replace them.
func JSON(document []byte) []byte {
	escaped := func(r rune) bool { return r >= 0x7f && !unicode.IsPrint(r) }
	if bytes.IndexFunc(document, escaped) < 0 {
		return document
	}
	out := make([]byte, 0, len(document)+64)
	for _, r := range string(document) {
		switch high, low := utf16.EncodeRune(r); {
		case !escaped(r):
			out = utf8.AppendRune(out, r)
		case high == unicode.ReplacementChar: // it needs no surrogates
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out
}
