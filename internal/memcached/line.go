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
	line, rest = request[:at], request[at+1:]
	if n := len(line); n > 1 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line, rest
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

// endBytes follow a value.
const endBytes = "\r\n"

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

// verbOfStorage returns the verb of a command that brings a value; else Bad.
func verbOfStorage(name []byte) Verb {
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
	return Bad
}

// readStorage reads the words after the name of a command that brings a value.
func readStorage(v Verb, line []byte) (s storage) {
	if v == MetaSet {
		return readMetaSet(line)
	}
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
		s.err = plainError
		return s
	}
	s.quiet = string(last) == noreply
	var ok [3]bool
	s.flags, ok[0] = flagsOf(flags)
	s.exptime, ok[1] = signed(exptime)
	s.length, ok[2] = lengthOf(length)
	if ok != [3]bool{true, true, true} || !casOK || len(s.key) > MaxKeyLen {
		s.err = badFormat
	}
	return s
}

func readMetaSet(line []byte) (s storage) {
	var length []byte
	var ok bool
	s.key, line = word(line)
	length, s.meta = word(line)
	switch s.length, ok = lengthOf(length); {
	case len(s.key) == 0:
		s.err = plainError
	case len(s.key) > MaxKeyLen, !ok:
		s.err = badFormat
	case words(s.meta) > maxFlags-1:
		s.err = "CLIENT_ERROR options flags too long"
	}
	return s
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
	noreply    = "noreply"
	plainError = "ERROR"
	badFormat  = "CLIENT_ERROR bad command line format"
	badChunk   = "CLIENT_ERROR bad data chunk"
	// TooLarge answers a value that is longer than max_value.
	TooLarge = "SERVER_ERROR object too large for cache"
)
