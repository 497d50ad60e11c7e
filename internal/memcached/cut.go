package memcached

import (
	"bytes"
	"errors"
)

const (
	// maxPlainLine is how long a line may be that is no get with many keys, as in memcached.
	maxPlainLine = 2048
	// MaxLine bounds a line, in bytes.
	MaxLine = 1 << 20
)

// Errors for which a connection must end.
var (
	ErrLongLine = errors.New("a command line without an end")
	ErrBinary   = errors.New("the binary protocol is not served: use the text protocol, with its meta commands")
	ErrTLS      = errors.New("the client speaks TLS, which is not served here: set it to plain connections")
)

// Span is where a request ends.
type Span struct {
	Size    int // bytes of the request; zero: it is not complete
	Need    int // bytes that an incomplete one takes in all, if that is known; else zero
	Scanned int // bytes of an incomplete line that have no end: the next call need not look again
	Drop    int // bytes of the value behind Size: it is longer than allowed, see Parse
}

// Cut finds the first request in b, of whose line the first scanned bytes have no end. maxValue is the
// length of the longest value. An error ends the connection.
func Cut(b []byte, scanned, maxValue int) (Span, error) {
	switch {
	case len(b) == 0:
	case b[0] == binaryMagic:
		return Span{}, ErrBinary
	case b[0] == tlsHandshake && len(b) > 1 && b[1] == tlsMajor: // it may have no end of a line
		return Span{}, ErrTLS
	}
	at := bytes.IndexByte(b[scanned:], '\n')
	if at < 0 {
		return Span{Scanned: len(b)}, checkLong(b)
	}
	size := scanned + at + 1
	if err := checkLong(b[:size-1]); err != nil { // however it has come
		return Span{}, err
	}
	if b[0] == 'g' || b[0] == 'm' && b[1] != 's' { // most requests: no value follows
		return Span{Size: size}, nil
	}
	length := blockLen(trimmed(b[:size-1]))
	switch {
	case length < 0:
		return Span{Size: size}, nil
	case length > maxValue:
		return Span{Size: size, Drop: length + len(crlf)}, nil
	}
	if size += length + len(crlf); size > len(b) {
		return Span{Need: size, Scanned: scanned}, nil
	}
	return Span{Size: size}, nil
}

const (
	binaryMagic  = 0x80 // the first byte of the binary protocol's requests
	tlsHandshake = 0x16 // the first byte of a TLS connection
	tlsMajor     = 3    // the second one
)

// checkLong returns an error if a line must end that has not ended.
func checkLong(b []byte) error {
	switch {
	case len(b) <= maxPlainLine:
		return nil
	case len(b) > MaxLine:
		return ErrLongLine
	}
	switch name, _ := word(b[:maxPlainLine]); string(name) {
	case "get", "gets", "gat", "gats":
		return nil
	}
	return ErrLongLine
}

// blockLen returns the length of the value that a line announces, or -1 if none follows it.
func blockLen(line []byte) int {
	name, args := word(line)
	v := storageVerb(name)
	if v == Invalid {
		return -1
	}
	var s storage
	if s.read(v, args); s.err != "" {
		return -1
	}
	return s.length
}

// IsQuiet says whether a command that brings a value, whose line is there, wants no answer.
func IsQuiet(request []byte) bool {
	line, _ := lineOf(request)
	name, args := word(line)
	v := storageVerb(name)
	if v == Invalid || v == MetaSet {
		return false
	}
	var s storage
	s.read(v, args)
	return s.quiet
}
