package peers

import (
	"bytes"
	"fmt"
	"net"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Redis speaks RESP2: SETs if Value is given, GETs otherwise.
type Redis struct {
	KeySize int
	Value   []byte
}

// Greet does nothing: RESP2 needs no greeting.
func (Redis) Greet(net.Conn) error { return nil }

// Append appends a command.
func (p Redis) Append(dst []byte, _ int, key uint64) []byte {
	if p.Value == nil {
		return bulkKey(append(dst, "*2\r\n$3\r\nGET\r\n"...), key, p.KeySize)
	}
	dst = bulkKey(append(dst, "*3\r\n$3\r\nSET\r\n"...), key, p.KeySize)
	dst = append(strconv.AppendInt(append(dst, '$'), int64(len(p.Value)), 10), "\r\n"...)
	return append(append(dst, p.Value...), "\r\n"...)
}

func bulkKey(dst []byte, key uint64, size int) []byte {
	dst = append(strconv.AppendInt(append(dst, '$'), int64(size), 10), "\r\n"...)
	return append(load.Key(dst, key, size), "\r\n"...)
}

// Count counts replies.
func (p Redis) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want && size < len(b) {
		line := bytes.IndexByte(b[size:], '\n')
		if line < 0 {
			break
		}
		end := size + line + 1
		switch b[size] {
		case '$':
			n, ok := number(b[size+1 : end])
			switch {
			case ok:
				if end += n + len("\r\n"); end > len(b) {
					return replies, hits, size, nil
				}
				hits++
			case string(b[size:end]) != "$-1\r\n": // a nil
				return replies, hits, size, fmt.Errorf("redis answers %q: a length is wanted behind the $", b[size:end])
			}
		case '+':
			hits++
		default:
			return replies, hits, size, fmt.Errorf("redis answers %q", b[size:end])
		}
		replies++
		size = end
	}
	return replies, hits, size, nil
}

// maxLength is the longest accepted value, in bytes.
const maxLength = 1 << 30

// number reads the decimal number at the start of b, and reports whether it is a valid
// length.
func number(b []byte) (n int, ok bool) {
	for i, c := range b {
		if c < '0' || c > '9' {
			return n, i > 0
		}
		if n = 10*n + int(c-'0'); n > maxLength {
			return 0, false
		}
	}
	return n, false // the line has no end
}
