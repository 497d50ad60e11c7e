package peers

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// MemcachedText speaks memcached's text commands: set if Value is given, get otherwise.
type MemcachedText struct {
	ungreeted
	KeySize int
	Value   []byte
	// Keys is how many keys stand on the line of a get; 0 means 1. Each is a request, and a
	// batch must be whole lines.
	Keys int
}

// Append appends a command, or one key of a get's line.
func (p MemcachedText) Append(dst []byte, i int, key uint64) []byte {
	if p.Value == nil {
		keys := max(p.Keys, 1)
		if i%keys == 0 {
			dst = append(dst, "get"...)
		}
		dst = load.Key(append(dst, ' '), key, p.KeySize)
		if i%keys == keys-1 {
			dst = append(dst, "\r\n"...)
		}
		return dst
	}
	dst = append(load.Key(append(dst, "set "...), key, p.KeySize), " 0 0 "...)
	dst = append(strconv.AppendInt(dst, int64(len(p.Value)), 10), "\r\n"...)
	return append(append(dst, p.Value...), "\r\n"...)
}

const textEnd = "END\r\n"

// Count counts replies. The end of a get's answer counts with its last value; keys that have
// none until then are misses.
func (p MemcachedText) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want {
		reply, end := lineOf(b, size)
		left := (want-replies-1)%max(p.Keys, 1) + 1 // keys of this line that are not answered
		switch {
		case reply == nil:
			return replies, hits, size, nil
		case bytes.HasPrefix(reply, []byte("VALUE ")):
			n, ok := number(reply[bytes.LastIndexByte(reply, ' ')+1:])
			if !ok {
				return replies, hits, size, fmt.Errorf("memcached answers %q: a length is wanted at the end", reply)
			}
			end += n + len("\r\n")
			if left == 1 {
				end += len(textEnd)
			}
			if end > len(b) {
				return replies, hits, size, nil
			}
			if left == 1 && string(b[end-len(textEnd):end]) != textEnd {
				return replies, hits, size, fmt.Errorf("memcached answers %q behind the last value, want END", b[end-len(textEnd):end])
			}
			replies++
			hits++
		case string(reply) == textEnd:
			replies += left
		case string(reply) == "STORED\r\n":
			replies++
			hits++
		case string(reply) == "NOT_STORED\r\n":
			replies++
		default:
			return replies, hits, size, fmt.Errorf("memcached answers %q", reply)
		}
		size = end
	}
	return replies, hits, size, nil
}
