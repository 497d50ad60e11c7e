package memcached

import "bytes"

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

// atEnd says whether a line has no further word.
func atEnd(line []byte) bool {
	w, _ := word(line)
	return len(w) == 0
}

// isLast says whether the last word of two is w. The second one may be missing.
func isLast(w string, first, second []byte) bool {
	if len(second) == 0 {
		second = first
	}
	return string(second) == w
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

// storageVerb returns the verb of a command that brings a value; else Invalid.
func storageVerb(name []byte) Verb {
	switch string(name) {
	case "set":
		return Set
	case "ms":
		return MetaSet
	case "add":
		return Add
	case "replace":
		return Replace
	case "append":
		return Append
	case "prepend":
		return Prepend
	case "cas":
		return CAS
	}
	return Invalid
}

// read reads the words after the name of a command that brings a value.
func (s *storage) read(v Verb, line []byte) {
	switch {
	case v == MetaSet:
		s.readMeta(line)
	case v == CAS || !s.readPlain(line):
		s.readAny(v, line)
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
	return ok1 && ok2 && ok3 && len(line) == 0 && len(s.key) <= MaxKeyLen
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
func (s *storage) readAny(v Verb, line []byte) {
	s.key, line = word(line)
	flags, line := word(line)
	exptime, line := word(line)
	length, line := word(line)
	last, casOK := length, true
	if v == CAS {
		last, line = word(line)
		s.cas, casOK = unsigned(last)
	}
	missing := len(last) == 0
	if w, rest := word(line); len(w) > 0 {
		last = w
		missing = missing || !atEnd(rest) // or too many
	}
	if missing {
		s.err = errorLine
		return
	}
	s.quiet = string(last) == noreply
	var ok [3]bool
	s.flags, ok[0] = parseUint32(flags)
	s.exptime, ok[1] = signed(exptime)
	s.length, ok[2] = lengthOf(length)
	if ok != [3]bool{true, true, true} || !casOK || len(s.key) > MaxKeyLen {
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
	case len(s.key) > MaxKeyLen, !ok:
		s.err = badFormat
	case words(s.meta) > maxFlags-1:
		s.err = "CLIENT_ERROR options flags too long"
	}
}

// words counts the words of a line.
func words(line []byte) (n int) {
	for {
		var w []byte
		if w, line = word(line); len(w) == 0 {
			return n
		}
		n++
	}
}

// longest returns the length of the longest word of a line.
func longest(line []byte) (n int) {
	for {
		var w []byte
		if w, line = word(line); len(w) == 0 {
			return n
		}
		n = max(n, len(w))
	}
}

const (
	noreply   = "noreply"
	errorLine = "ERROR"
	badFormat = "CLIENT_ERROR bad command line format"
	badChunk  = "CLIENT_ERROR bad data chunk"
	// TooLarge answers a value that is longer than max_value.
	TooLarge = "SERVER_ERROR object too large for cache"
)
