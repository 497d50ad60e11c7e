package peers

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Redis speaks RESP2: SETs if Value is given, GETs otherwise.
type Redis struct {
	ungreeted
	KeySize int
	Value   []byte
}

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
	for replies < want {
		reply, end := lineOf(b, size)
		if reply == nil {
			break
		}
		switch reply[0] {
		case '$':
			n, ok := number(reply[1:])
			switch {
			case ok:
				if end += n + len("\r\n"); end > len(b) {
					return replies, hits, size, nil
				}
				hits++
			case string(reply) != "$-1\r\n": // a nil
				return replies, hits, size, fmt.Errorf("redis answers %q: a length is wanted behind the $", reply)
			}
		case '+':
			hits++
		default:
			return replies, hits, size, fmt.Errorf("redis answers %q", reply)
		}
		replies++
		size = end
	}
	return replies, hits, size, nil
}

// lineOf returns the line that begins at a place, and where it ends; nil: its end has not come.
func lineOf(b []byte, from int) (line []byte, end int) {
	end = from + bytes.IndexByte(b[from:], '\n') + 1
	if end == from {
		return nil, end
	}
	return b[from:end], end
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
