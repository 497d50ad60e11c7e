package peers

import (
	"bytes"
	"fmt"
	"net"
	"strconv"

	"github.com/cachesidecar/cachesidecar/internal/load"
)

// Redis speaks RESP2: GETs, or SETs where Value is given.
type Redis struct {
	KeySize int
	Value   []byte
}

// Greet does nothing: RESP2 needs no greeting.
func (Redis) Greet(net.Conn) error { return nil }

// Append appends a command.
func (p Redis) Append(dst []byte, _ int, key uint64) []byte {
	k := load.Key(nil, key, p.KeySize)
	if p.Value == nil {
		return fmt.Appendf(dst, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", len(k), k)
	}
	return fmt.Appendf(dst, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n", len(k), k, len(p.Value), p.Value)
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
			n, err := strconv.Atoi(string(b[size+1 : end-2]))
			if err != nil {
				return replies, hits, size, err
			}
			if n >= 0 {
				if end += n + 2; end > len(b) {
					return replies, hits, size, nil
				}
				hits++
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

// Memcached speaks the meta commands: mg, or ms where Value is given.
type Memcached struct {
	KeySize int
	Value   []byte
}

// Greet does nothing.
func (Memcached) Greet(net.Conn) error { return nil }

// Append appends a command. Like a GET of ours, mg asks for the value and for
// what identifies its version.
func (p Memcached) Append(dst []byte, _ int, key uint64) []byte {
	k := load.Key(nil, key, p.KeySize)
	if p.Value == nil {
		return fmt.Appendf(dst, "mg %s v c\r\n", k)
	}
	return fmt.Appendf(dst, "ms %s %d\r\n%s\r\n", k, len(p.Value), p.Value)
}

// Count counts replies.
func (p Memcached) Count(b []byte, want int) (replies, hits, size int, err error) {
	for replies < want && size < len(b) {
		line := bytes.IndexByte(b[size:], '\n')
		if line < 0 {
			break
		}
		end := size + line + 1
		switch {
		case bytes.HasPrefix(b[size:], []byte("VA ")):
			n, i := 0, size+3
			for ; b[i] >= '0' && b[i] <= '9'; i++ {
				n = 10*n + int(b[i]-'0')
			}
			if end += n + 2; end > len(b) {
				return replies, hits, size, nil
			}
			hits++
		case bytes.HasPrefix(b[size:], []byte("HD")):
			hits++
		case bytes.HasPrefix(b[size:], []byte("EN")), bytes.HasPrefix(b[size:], []byte("NS")):
		default:
			return replies, hits, size, fmt.Errorf("memcached answers %q", b[size:end])
		}
		replies++
		size = end
	}
	return replies, hits, size, nil
}

// Echo is the limit: frames as long as the sidecar's answer to a GET, which
// come back as they are.
type Echo struct{ Frame int }

// Greet does nothing.
func (Echo) Greet(net.Conn) error { return nil }

// Append appends a frame.
func (p Echo) Append(dst []byte, _ int, _ uint64) []byte {
	return append(dst, make([]byte, p.Frame)...)
}

// Count counts frames.
func (p Echo) Count(b []byte, want int) (replies, hits, size int, err error) {
	n := min(len(b)/p.Frame, want)
	return n, n, n * p.Frame, nil
}
