package memcached

import (
	"strconv"
)

// Item is what an answer says about a key.
type Item struct {
	Value   []byte
	Size    int // of the value, if Value is not there
	Flags   uint32
	Version uint64 // what memcached calls cas
	TTLMS   int64  // remaining; zero: no expiry
	Read    bool   // it has been read before
	// SinceWrite is what memcached says of the last access, in seconds: reads are not timed here, so it counts
	// from the write.
	SinceWrite int64
	Won        bool // W: the client is to load the value
	Taken      bool // Z: another client is to load the value
	Stale      bool // X
}

// AppendHead appends what stands before the value of an item in the answer to a get or a
// meta command. A get names the key, with its prefix.
func (f *form) AppendHead(dst, prefix, key []byte, i *Item) []byte {
	if f.verb == MetaGet || f.verb == MetaArithmetic {
		dst = append(dst, "VA "...)
		dst = strconv.AppendInt(dst, int64(i.Size), 10)
		return f.appendFlags(dst, i)
	}
	dst = appendValue(dst, prefix, key, i.Flags, i.Size)
	if f.verb == Gets || f.verb == Gats {
		dst = strconv.AppendUint(append(dst, ' '), i.Version, 10)
	}
	return append(dst, crlf...)
}

// AppendGetHead is AppendHead for get, which tells only of flags and size.
func AppendGetHead(dst, key []byte, flags uint32, size int) []byte {
	return append(appendValue(dst, nil, key, flags, size), crlf...)
}

func appendValue(dst, prefix, key []byte, flags uint32, size int) []byte {
	dst = append(append(append(dst, "VALUE "...), prefix...), key...)
	if flags == 0 {
		dst = append(dst, " 0 "...)
	} else {
		dst = append(strconv.AppendUint(append(dst, ' '), uint64(flags), 10), ' ')
	}
	return strconv.AppendUint(dst, uint64(size), 10)
}

// MaxHead is more than AppendHead appends beside the key and the opaque token, in bytes.
const MaxHead = 160

// AppendItem appends the answer for a key that is there: a value with its head, or the head
// alone.
func (f *form) AppendItem(dst, prefix, key []byte, i *Item) []byte {
	if f.isMeta() && !f.withValue {
		return f.AppendCode(dst, "HD", i)
	}
	dst = f.AppendHead(dst, prefix, key, i)
	return append(append(dst, i.Value...), crlf...)
}

// isMeta says whether the command is a meta command.
func (f *form) isMeta() bool { return f.verb >= MetaGet }

// AppendCode appends an answer of a meta command without a value.
func (f *form) AppendCode(dst []byte, code string, i *Item) []byte {
	return f.appendFlags(append(dst, code...), i)
}

// appendFlags appends the flags that a command wants back, and the end of the line.
func (f *form) appendFlags(dst []byte, i *Item) []byte {
	for _, o := range f.repeated[:f.nRepeated] {
		switch o {
		case 'O':
			dst = append(append(dst, ' '), f.opaque...)
			continue
		case 'k':
			dst = append(append(dst, " k"...), f.written...)
			if f.base64 {
				dst = append(dst, " b"...)
			}
			continue
		}
		if f.wants(o) && i != nil {
			dst = i.appendFlag(append(dst, ' ', o), o)
		}
	}
	if i != nil && i.Taken {
		dst = append(dst, " Z"...)
	}
	if i != nil && i.Stale {
		dst = append(dst, " X"...)
	}
	if i != nil && i.Won {
		dst = append(dst, " W"...)
	}
	return append(dst, crlf...)
}

// wants says whether an answer of the command has the flag o, which is not O or k.
func (f *form) wants(o byte) bool {
	switch f.verb {
	case MetaSet:
		return o == 'c'
	case MetaArithmetic:
		return o == 'c' || o == 't'
	case MetaGet:
		return true
	}
	return false
}

// appendFlag appends what the item says for a flag.
func (i *Item) appendFlag(dst []byte, o byte) []byte {
	switch o {
	case 's':
		return strconv.AppendInt(dst, int64(i.Size), 10)
	case 't':
		return strconv.AppendInt(dst, seconds(i.TTLMS), 10)
	case 'c':
		return strconv.AppendUint(dst, i.Version, 10)
	case 'f':
		return strconv.AppendUint(dst, uint64(i.Flags), 10)
	case 'l':
		return strconv.AppendInt(dst, i.SinceWrite, 10)
	}
	if i.Read { // h
		return append(dst, '1')
	}
	return append(dst, '0')
}

// seconds returns a remaining TTL as memcached says it: -1 for no expiry.
func seconds(ttlMS int64) int64 {
	if ttlMS == 0 {
		return -1
	}
	return (ttlMS + 999) / 1000
}

// AppendMiss appends the answer of mg for a key that is not there.
func (f *form) AppendMiss(dst []byte) []byte {
	if f.quiet {
		return dst
	}
	return f.AppendCode(dst, "EN", nil)
}

// AppendDebug appends the answer to me for a key that is there.
func (f *form) AppendDebug(dst []byte, i *Item) []byte {
	dst = append(append(dst, "ME "...), f.written...)
	dst = strconv.AppendInt(append(dst, " exp="...), seconds(i.TTLMS), 10)
	dst = strconv.AppendInt(append(dst, " la="...), i.SinceWrite, 10)
	dst = strconv.AppendUint(append(dst, " cas="...), i.Version, 10)
	fetched := "no"
	if i.Read {
		fetched = "yes"
	}
	dst = append(append(dst, " fetch="...), fetched...)
	dst = strconv.AppendInt(append(dst, " cls=0 size="...), int64(i.Size+len(f.written)), 10)
	return append(dst, crlf...)
}

// AppendLine appends a line of text, unless the client wants no answer.
func (f *form) AppendLine(dst []byte, line string) []byte {
	if f.quiet {
		return dst
	}
	return append(append(dst, line...), crlf...)
}

// AppendError appends an error that names what the server could not do. A meta command gets
// it in spite of its flag q.
func (f *form) AppendError(dst []byte, kind string, message []byte) []byte {
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

// AppendStat appends one line of the answer to stats.
func AppendStat(dst []byte, name, value string) []byte {
	dst = append(append(dst, "STAT "...), name...)
	dst = append(append(dst, ' '), value...)
	return append(dst, crlf...)
}

// End ends the answers to get and stats.
const End = "END\r\n"
