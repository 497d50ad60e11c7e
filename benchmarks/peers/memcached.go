package peers

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Memcached speaks the meta commands: ms if Value is given, mg otherwise.
type Memcached struct {
	ungreeted
	KeySize int
	Value   []byte
	Lean    bool // mg asks for the value alone
}

// Append appends a command. Like the sidecar's GET, mg asks for the value and for its
// version, unless it is lean.
func (p Memcached) Append(dst []byte, _ int, key uint64) []byte {
	if p.Value == nil {
		dst = append(load.Key(append(dst, "mg "...), key, p.KeySize), " v"...)
		if !p.Lean {
			dst = append(dst, " c"...)
		}
		return append(dst, "\r\n"...)
	}
	dst = append(load.Key(append(dst, "ms "...), key, p.KeySize), ' ')
	dst = append(strconv.AppendInt(dst, int64(len(p.Value)), 10), "\r\n"...)
	return append(append(dst, p.Value...), "\r\n"...)
}

// Count counts replies.
func (p Memcached) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want {
		reply, end := lineOf(b, size)
		switch {
		case reply == nil:
			return replies, hits, size, nil
		case bytes.HasPrefix(reply, []byte("VA ")):
			n, ok := number(reply[len("VA "):])
			if !ok {
				return replies, hits, size, fmt.Errorf("memcached answers %q: a length is wanted behind VA", reply)
			}
			if end += n + len("\r\n"); end > len(b) {
				return replies, hits, size, nil
			}
			hits++
		case bytes.HasPrefix(reply, []byte("HD")):
			hits++
		case bytes.HasPrefix(reply, []byte("EN")), bytes.HasPrefix(reply, []byte("NS")):
		default:
			return replies, hits, size, fmt.Errorf("memcached answers %q", reply)
		}
		replies++
		size = end
	}
	return replies, hits, size, nil
}
