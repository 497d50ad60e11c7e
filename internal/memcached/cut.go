package memcached

import (
	"bytes"
	"errors"

	"github.com/cachesidecar/cachesidecar/internal/rpc/server"
)

const (
	// maxPlainLine is how long a line may be that is no get with many keys, as in memcached.
	maxPlainLine = 2048
	// maxLine bounds a line, in bytes: 33,000 of the longest keys. memcached has no bound.
	maxLine = 8 << 20
)

// Errors for which a connection must end.
var (
	errLongLine = errors.New("a command line without an end")
	errBinary   = errors.New("the binary protocol is not served: use the text protocol, with its meta commands")
	errTLS      = errors.New("the client speaks TLS, which is not served here: set it to plain connections")
)

// Longest bounds a command, in bytes. No value follows a line that is longer than a plain one. One byte
// more than the longest line tells that a line is too long.
func (d *Endpoint) Longest() int { return max(maxLine+1, maxPlainLine+1+d.MaxValue+len(crlf)) }

// Cut finds the first command: a line, and the value that it announces. A value that is longer than
// allowed is dropped: see parse.
func (d *Endpoint) Cut(b []byte, scanned, _ int) server.Cut {
	switch {
	case b[0] == binaryMagic:
		return bad(b, errBinary)
	case b[0] == tlsHandshake && len(b) > 1 && b[1] == tlsMajor: // it may have no end of a line
		return bad(b, errTLS)
	}
	at := bytes.IndexByte(b[scanned:], '\n')
	size := scanned + at + 1
	switch {
	case at < 0 && isLong(b), at >= 0 && isLong(b[:size-1]): // however it has come
		return bad(b, errLongLine)
	case at < 0:
		return server.Cut{Scanned: len(b)}
	}
	cut := server.Cut{Frame: b[:size], Size: size}
	if b[0] == 'g' || b[0] == 'm' && b[1] != 's' { // most commands: no value follows
		return cut
	}
	switch length := blockLen(trimmed(b[:size-1])); {
	case length < 0:
	case length > d.MaxValue:
		cut.Drop = length + len(crlf)
	case size+length+len(crlf) > len(b):
		return server.Cut{Need: size + length + len(crlf), Scanned: scanned}
	default:
		cut.Size += length + len(crlf)
		cut.Frame = b[:cut.Size]
	}
	return cut
}

// bad ends the connection.
func bad(b []byte, why error) server.Cut { return server.Cut{Frame: b, Need: len(b), Bad: why} }

// Busy answers a value that there is no memory for.
func (*Endpoint) Busy(dst, beginning []byte, _ error) (out []byte, ok bool) {
	var c command
	parse(beginning, &c)
	return c.appendLine(dst, "SERVER_ERROR out of memory storing object"), true
}

const (
	binaryMagic  = 0x80 // the first byte of the binary protocol's requests
	tlsHandshake = 0x16 // the first byte of a TLS connection
	tlsMajor     = 3    // the second one
)

// isLong says whether a line is longer than a line may be. It may have no end yet.
func isLong(b []byte) bool {
	if len(b) <= maxPlainLine || len(b) > maxLine {
		return len(b) > maxLine
	}
	switch name, _ := word(b[:maxPlainLine]); string(name) {
	case "get", "gets", "gat", "gats":
		return false
	}
	return true
}

// blockLen returns the length of the value that a line announces, or -1 if none follows it.
func blockLen(line []byte) int {
	name, args := word(line)
	v, mode := storing(name)
	if v == 0 {
		return -1
	}
	var s storage
	if s.read(v, mode, args); s.err != "" {
		return -1
	}
	return s.length
}
