package wire

import (
	"errors"
	"fmt"
)

// The bounds of an app's value that is msgpack, the same in all languages, for writers and
// readers: docs/CLIENTS.md.
const (
	MaxLevels   = 64      // arrays and maps within each other
	MaxElements = 1 << 20 // items of arrays, keys and values of maps, of the whole value
)

var (
	errNested = fmt.Errorf("arrays or maps nest deeper than %d levels: store it as text, such as JSON", MaxLevels)
	errMany   = fmt.Errorf("it has more than %d elements: store it as bytes or text, or in parts", MaxElements)
)

// CheckValue checks that b is exactly one msgpack value within the bounds of the values of
// apps. It does not recurse and does not allocate. Any b that passes is safe for a decoder that
// does.
func CheckValue(b []byte) error {
	var left [MaxLevels]uint64 // elements that are to come, by depth
	elements := uint64(0)
	for depth := 0; ; left[depth-1]-- {
		head, payload, children, err := readHead(b)
		if err != nil {
			return err
		}
		if payload > uint64(len(b)-head) {
			return errShort
		}
		if c := b[0]; c&0xe0 == 0x80 || c&0xfc == 0xdc { // also an array or map without elements
			if elements += children; elements > MaxElements {
				return errMany
			}
			if depth == MaxLevels {
				return errNested
			}
			left[depth] = children
			depth++
		}
		b = b[uint64(head)+payload:]
		for depth > 0 && left[depth-1] == 0 {
			depth--
		}
		if depth == 0 {
			break
		}
	}
	if len(b) > 0 {
		return errRest
	}
	return nil
}

// CheckPart is CheckValue for the first bytes of a value.
func CheckPart(b []byte) error {
	if err := CheckValue(b); !errors.Is(err, errShort) {
		return err
	}
	return nil
}
