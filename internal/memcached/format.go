package memcached

import (
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// maxHead is more than appendHead appends beside the key and the opaque token, in bytes.
const maxHead = 160

// appendHead appends what stands before a value of so many bytes in the answer to a get or a meta
// command. A get names the key, with its prefix.
func (f *form) appendHead(dst, prefix, key []byte, size int, r *wire.Reply) []byte {
	if f.isMeta() {
		return f.appendFlags(strconv.AppendInt(append(dst, "VA "...), int64(size), 10), r)
	}
	dst = append(append(append(dst, "VALUE "...), prefix...), key...)
	if r.Flags == 0 {
		dst = append(dst, " 0 "...)
	} else {
		dst = append(strconv.AppendUint(append(dst, ' '), uint64(r.Flags), 10), ' ')
	}
	dst = strconv.AppendUint(dst, uint64(size), 10)
	if f.verb == verbGets || f.verb == verbGats {
		dst = strconv.AppendUint(append(dst, ' '), r.Version, 10)
	}
	return append(dst, crlf...)
}

// appendItem appends the answer for a key that is there: a value with its head, or the head
// alone.
func (f *form) appendItem(dst, prefix, key, value []byte, r *wire.Reply) []byte {
	if f.isMeta() && !f.withValue {
		return f.appendCode(dst, "HD", r)
	}
	dst = f.appendHead(dst, prefix, key, len(value), r)
	return append(append(dst, value...), crlf...)
}

// isMeta says whether the command is a meta command.
func (f *form) isMeta() bool { return f.verb >= verbMetaGet }

// appendCode appends an answer of a meta command without a value.
func (f *form) appendCode(dst []byte, code string, r *wire.Reply) []byte {
	return f.appendFlags(append(dst, code...), r)
}

// appendFlags appends the flags that a command wants back, and the end of the line.
func (f *form) appendFlags(dst []byte, r *wire.Reply) []byte {
	for _, o := range f.repeated[:f.nRepeated] {
		switch {
		case o == 'O':
			dst = append(append(dst, ' '), f.opaque...)
		case o == 'k':
			dst = append(append(dst, " k"...), f.written...)
			if f.base64 {
				dst = append(dst, " b"...)
			}
		case f.tells(o, r):
			dst = appendFlag(append(dst, ' ', o), o, r)
		}
	}
	if r.Claim == wire.ClaimTaken {
		dst = append(dst, " Z"...)
	}
	if r.Status == wire.Stale {
		dst = append(dst, " X"...)
	}
	if r.Claim == wire.ClaimWon {
		dst = append(dst, " W"...)
	}
	return append(dst, crlf...)
}

// tells says whether an answer of the command has the flag o, which is not O or k.
func (f *form) tells(o byte, r *wire.Reply) bool {
	switch f.verb {
	case verbMetaSet:
		return o == 'c'
	case verbMetaArithmetic:
		return r.Status == wire.OK && (o == 'c' || o == 't')
	case verbMetaGet:
		return r.Status != wire.Miss || r.Claim != wire.ClaimNone
	}
	return false
}

// appendFlag appends what a reply says for a flag.
func appendFlag(dst []byte, o byte, r *wire.Reply) []byte {
	switch o {
	case 's':
		return strconv.AppendUint(dst, r.Size, 10)
	case 't':
		return strconv.AppendInt(dst, remaining(r.TTLMS), 10)
	case 'c':
		if r.Claim != wire.ClaimNone {
			return strconv.AppendUint(dst, uint64(r.Number), 10)
		}
		return strconv.AppendUint(dst, r.Version, 10)
	case 'f':
		return strconv.AppendUint(dst, uint64(r.Flags), 10)
	case 'l': // memcached's is the last access: reads are not timed here, so it counts from the write
		return strconv.AppendUint(dst, r.IdleMS/1000, 10)
	}
	if r.Read { // h
		return append(dst, '1')
	}
	return append(dst, '0')
}

// remaining returns a TTL as memcached says it: -1 for no expiry.
func remaining(ttlMS int64) int64 {
	if ttlMS == 0 {
		return -1
	}
	return (ttlMS + 999) / 1000
}

// appendDebug appends the answer to me for a key that is there.
func (f *form) appendDebug(dst []byte, r *wire.Reply) []byte {
	fetched := "no"
	if r.Read {
		fetched = "yes"
	}
	return fmt.Appendf(dst, "ME %s exp=%d la=%d cas=%d fetch=%s cls=0 size=%d\r\n", f.written, remaining(r.TTLMS),
		r.IdleMS/1000, r.Version, fetched, int(r.Size)+len(f.written))
}

// appendLine appends a line of text, unless the client wants no answer.
func (f *form) appendLine(dst []byte, line string) []byte {
	if f.quiet {
		return dst
	}
	return append(append(dst, line...), crlf...)
}

// appendError appends an error as memcached says it. A meta command gets it in spite of its flag q.
func (f *form) appendError(dst []byte, kind string, message []byte) []byte {
	if f.quiet && !f.isMeta() {
		return dst
	}
	dst = append(append(dst, kind...), ' ')
	for _, c := range message {
		if c < ' ' || c == 0x7f { // the answer is one line
			c = ' '
		}
		dst = append(dst, c)
	}
	return append(dst, crlf...)
}

// end ends the answers to get and stats.
const end = "END\r\n"
