package memcached

import (
	"bytes"
	"math"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// word cuts the first word off a line. Only spaces divide words.
func word(line []byte) (w, rest []byte) {
	for len(line) > 0 && line[0] == ' ' {
		line = line[1:]
	}
	if n := bytes.IndexByte(line, ' '); n >= 0 {
		return line[:n], line[n:]
	}
	return line, nil
}

// maxWords is more words than a command without flags has behind its name, but for the keys of a get.
const maxWords = 7

// split cuts a line into words, and says how many there are; of more than maxWords it looks at no more.
func split(line []byte) (w [maxWords][]byte, n int) {
	for n = range w {
		if w[n], line = word(line); len(w[n]) == 0 {
			return w, n
		}
	}
	return w, maxWords
}

// lineOf returns the words of a request's line, without its end, and what follows it. The
// request is what Cut has found.
func lineOf(request []byte) (line, rest []byte) {
	at := len(request) - 1 // most requests are one line
	if request[0] != 'g' {
		at = bytes.IndexByte(request, '\n')
	}
	return trimmed(request[:at]), request[at+1:]
}

// trimmed returns a line without the \r at its end. As in memcached a zero byte ends it too.
func trimmed(line []byte) []byte {
	if n := len(line); n > 1 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	if at := bytes.IndexByte(line, 0); at >= 0 {
		return line[:at]
	}
	return line
}

// lastWord returns the last word of a line.
func lastWord(line []byte) []byte {
	line = bytes.TrimRight(line, " ")
	return line[bytes.LastIndexByte(line, ' ')+1:]
}

// crlf follows a value.
const crlf = "\r\n"

// storage is the line of a command that brings a value.
type storage struct {
	key     []byte
	length  int // of the value, bytes
	flags   uint32
	exptime int64
	cas     uint64
	quiet   bool
	meta    []byte // of ms: its flags
	err     string // the line is not valid, and brings no value
}

// storing returns the verb and the mode of a command that brings a value; of any other zero.
func storing(name []byte) (v verb, mode wire.Mode) {
	switch string(name) {
	case "set":
		return verbStore, wire.ModeSet
	case "ms":
		return verbMetaSet, wire.ModeSet
	case "add":
		return verbStore, wire.ModeAdd
	case "replace":
		return verbStore, wire.ModeReplace
	case "append":
		return verbStore, wire.ModeAppend
	case "prepend":
		return verbStore, wire.ModePrepend
	case "cas":
		return verbStore, wire.ModeCAS
	}
	return 0, 0
}

// read reads the words after the name of a command that brings a value.
func (s *storage) read(v verb, mode wire.Mode, line []byte) {
	switch {
	case v == verbMetaSet:
		s.readMeta(line)
	case mode == wire.ModeCAS || !s.readPlain(line):
		s.readAny(mode, line)
	}
}

// readPlain reads the words of a command as most clients write it: one space between words,
// short numbers, and an answer is wanted. It returns false for any other.
func (s *storage) readPlain(line []byte) bool {
	s.key, line = word(line)
	flags, line, ok1 := plainNumber(line)
	exptime, line, ok2 := plainNumber(line)
	length, line, ok3 := plainNumber(line)
	s.flags, s.exptime, s.length = uint32(flags), int64(exptime), length
	return ok1 && ok2 && ok3 && len(line) == 0 && len(s.key) <= maxKeyLen
}

// plainNumber reads one space and up to nine digits, behind which a word ends.
func plainNumber(line []byte) (n int, rest []byte, ok bool) {
	if len(line) < 2 || line[0] != ' ' {
		return 0, nil, false
	}
	for i, c := range line[1:min(len(line), 1+9)] {
		d := c - '0'
		if d > 9 {
			return n, line[1+i:], i > 0 && c == ' '
		}
		n = n*10 + int(d)
	}
	return n, nil, len(line) <= 1+9
}

// readAny is read for any way to write the words.
func (s *storage) readAny(mode wire.Mode, line []byte) {
	w, n := split(line)
	least := 4
	if mode == wire.ModeCAS {
		least = 5
	}
	if n < least || n > least+1 {
		s.err = errorLine
		return
	}
	s.key, s.quiet = w[0], string(w[n-1]) == noreply
	flags, ok1 := unsigned(w[1], 32)
	exptime, ok2 := signed(w[2])
	length, ok3 := lengthOf(w[3])
	s.flags, s.exptime, s.length = uint32(flags), exptime, length
	ok4 := true
	if mode == wire.ModeCAS {
		s.cas, ok4 = unsigned(w[4], 64)
	}
	if !ok1 || !ok2 || !ok3 || !ok4 || len(s.key) > maxKeyLen {
		s.err = badFormat
	}
}

func (s *storage) readMeta(line []byte) {
	s.key, line = word(line)
	var ok bool
	if s.length, s.meta, ok = plainNumber(line); !ok {
		var length []byte
		length, s.meta = word(line)
		s.length, ok = lengthOf(length)
	}
	switch {
	case len(s.key) == 0:
		s.err = errorLine
	case len(s.key) > maxKeyLen, !ok:
		s.err = badFormat
	default:
		if n, _ := measure(s.meta); n > maxFlags-1 {
			s.err = tooManyFlags
		}
	}
}

// measure counts the words of a line, and returns the length of the longest.
func measure(line []byte) (n, longest int) {
	for {
		var w []byte
		if w, line = word(line); len(w) == 0 {
			return n, longest
		}
		n++
		longest = max(longest, len(w))
	}
}

// unsigned reads a decimal number of so many bits.
func unsigned(b []byte, bits int) (n uint64, ok bool) {
	n, err := strconv.ParseUint(string(bytes.TrimPrefix(b, []byte("+"))), 10, bits)
	return n, err == nil
}

// signed reads a decimal number with an optional sign.
func signed(b []byte) (n int64, ok bool) {
	n, err := strconv.ParseInt(string(b), 10, 64)
	return n, err == nil
}

// lengthOf reads the length of a value.
func lengthOf(b []byte) (int, bool) {
	n, ok := unsigned(b, 31)
	return int(n), ok && n <= math.MaxInt32-2
}

const (
	noreply   = "noreply"
	errorLine = "ERROR"
	badFormat = "CLIENT_ERROR bad command line format"
	badChunk  = "CLIENT_ERROR bad data chunk"
	// TooLarge answers a value that is longer than max_value.
	tooLarge = "SERVER_ERROR object too large for cache"
)
