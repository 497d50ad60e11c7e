package logs

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Plain returns a text in which everything is escaped that a terminal would not show as
// it is: control characters, line ends, marks that change the direction of writing, and
// bytes that are not UTF-8.
func Plain(s string) string {
	if plain(s) {
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
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 1<<16:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
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

func plain(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			return strings.IndexFunc(s[i:], unprintable) < 0
		}
	}
	return true
}

// unprintable reports whether a rune cannot be printed. This includes the character that
// Go returns for bytes that are not UTF-8.
func unprintable(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }

// JSON returns a JSON document of the same meaning with only printable characters, except
// for the spaces and line ends between its parts. encoding/json escapes ASCII control
// characters. Other unprintable characters occur only in strings, where \u escapes can
// replace them.
func JSON(document []byte) []byte {
	clean := true
	for i := 0; i < len(document) && clean; {
		if document[i] < 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(document[i:])
		clean = unicode.IsPrint(r)
		i += n
	}
	if clean {
		return document
	}
	out := make([]byte, 0, len(document)+64)
	for len(document) > 0 {
		r, n := utf8.DecodeRune(document)
		switch {
		case r < 0x7f, unicode.IsPrint(r):
			out = append(out, document[:n]...)
		case r < 1<<16:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			r -= 1 << 16
			out = fmt.Appendf(out, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
		document = document[n:]
	}
	return out
}
