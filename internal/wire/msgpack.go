package wire

import (
	"encoding/binary"
	"errors"
	"math"
)

// MaxDepth is the maximum nesting depth of arrays and maps in a frame.
const MaxDepth = 16

var (
	errShort = errors.New("the msgpack value is cut short")
	errDepth = errors.New("arrays or maps nest deeper than 16")
	errCount = errors.New("an array or map announces more elements than the frame has bytes")
	errType  = errors.New("0xc1 is no msgpack type")
	errRest  = errors.New("bytes follow the msgpack value")
)

// longestUint is the length of the longest unsigned number, in bytes.
const longestUint = 9

// putUint writes a number at b[at:] in its shortest form, and returns where it ends. b has
// room for longestUint bytes there.
func putUint(b []byte, at int, v uint64) int {
	if v <= 0x7f {
		b[at] = byte(v)
		return at + 1
	}
	return putSized(b, at, v)
}

func putSized(b []byte, at int, v uint64) int {
	switch b = b[at:]; {
	case v <= math.MaxUint8:
		b[0], b[1] = 0xcc, byte(v)
		return at + 2
	case v <= math.MaxUint16:
		b[0] = 0xcd
		binary.BigEndian.PutUint16(b[1:], uint16(v))
		return at + 3
	case v <= math.MaxUint32:
		b[0] = 0xce
		binary.BigEndian.PutUint32(b[1:], uint32(v))
		return at + 5
	}
	b[0] = 0xcf
	binary.BigEndian.PutUint64(b[1:], v)
	return at + longestUint
}

// checkMsgpack checks that b is exactly one msgpack value, nested at most MaxDepth deep,
// whose counts fit the number of bytes. It does not recurse and does not allocate. Any b
// that passes is safe for a decoder that does.
func checkMsgpack(b []byte) error {
	rest, err := skipValue(b, 0)
	if err == nil && len(rest) > 0 {
		return errRest
	}
	return err
}

// skipValue returns the bytes after the first msgpack value of b. around is the number of
// arrays that already enclose the value.
func skipValue(b []byte, around int) ([]byte, error) {
	var left [MaxDepth]uint64 // remaining elements, by depth
	depth := -1
	for {
		head, payload, children, err := readHead(b)
		if err != nil {
			return nil, err
		}
		b = b[head:]
		switch {
		case payload > uint64(len(b)):
			return nil, errShort
		case children > uint64(len(b)):
			return nil, errCount
		}
		b = b[payload:]
		if children > 0 {
			if depth++; depth == MaxDepth-around {
				return nil, errDepth
			}
			left[depth] = children
			continue
		}
		for depth >= 0 {
			if left[depth]--; left[depth] > 0 {
				break
			}
			depth--
		}
		if depth < 0 {
			return b, nil
		}
	}
}

// readHead reads the head of a msgpack value. It returns the length of the head, the
// number of payload bytes after the head, and the number of values after the payload.
func readHead(b []byte) (head int, payload, children uint64, err error) {
	if len(b) == 0 {
		return 0, 0, 0, errShort
	}
	var lengthSize int
	var extra, elements uint64 // payload in addition to the length; values per element
	switch c := b[0]; {
	case c <= 0x7f, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3: // fixint, nil, bool
		return 1, 0, 0, nil
	case c <= 0x8f: // fixmap
		return 1, 0, 2 * uint64(c&0x0f), nil
	case c <= 0x9f: // fixarray
		return 1, 0, uint64(c & 0x0f), nil
	case c <= 0xbf: // fixstr
		return 1, uint64(c & 0x1f), 0, nil
	case c == 0xc1:
		return 0, 0, 0, errType
	case c <= 0xc6: // bin 8, 16, 32
		lengthSize = 1 << (c - 0xc4)
	case c <= 0xc9: // ext 8, 16, 32
		lengthSize, extra = 1<<(c-0xc7), 1
	case c <= 0xcb: // float 32, 64
		return 1, 4 << (c - 0xca), 0, nil
	case c <= 0xcf: // uint 8 to 64
		return 1, 1 << (c - 0xcc), 0, nil
	case c <= 0xd3: // int 8 to 64
		return 1, 1 << (c - 0xd0), 0, nil
	case c <= 0xd8: // fixext 1 to 16
		return 1, 1 + 1<<(c-0xd4), 0, nil
	case c <= 0xdb: // str 8, 16, 32
		lengthSize = 1 << (c - 0xd9)
	case c <= 0xdd: // array 16, 32
		lengthSize, elements = 2<<(c-0xdc), 1
	default: // map 16, 32
		lengthSize, elements = 2<<(c-0xde), 2
	}
	if len(b) < 1+lengthSize {
		return 0, 0, 0, errShort
	}
	var n uint64
	switch lengthSize {
	case 1:
		n = uint64(b[1])
	case 2:
		n = uint64(binary.BigEndian.Uint16(b[1:]))
	default:
		n = uint64(binary.BigEndian.Uint32(b[1:]))
	}
	if elements > 0 {
		return 1 + lengthSize, 0, n * elements, nil
	}
	return 1 + lengthSize, n + extra, 0, nil
}
