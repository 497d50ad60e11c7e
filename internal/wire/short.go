package wire

import (
	"encoding/binary"
	"math"
)

// GET and SET are nearly all requests. decodeShort reads them from the forms that
// AppendRequest gives their elements, in a fraction of the general decoder's time.

// Elements of the shortest GET and SET, and of the longest SET.
const (
	leastGet = 5
	leastSet = 6
	mostSet  = 13
)

// decodeShort decodes a GET or a SET into r, in which only TTLMS is set, and reports
// whether it has. Otherwise r is unchanged: the general decoder finds the error, or another
// form of the same elements.
func decodeShort(b []byte, r *Request) bool {
	if len(b) == 0 || b[0] < 0x90|leastGet || b[0] > 0x90|mostSet {
		return false
	}
	left := int(b[0]&0x0f) - leastGet
	var id, op, timeout uint64
	id, b = shortUint(b[1:])
	op, b = shortUint(b)
	timeout, b = shortUint(b)
	var namespace, key, value []byte
	if isNil(b) {
		b = b[1:]
	} else {
		namespace, b = shortText(b)
	}
	key, b = shortText(b)
	ttl := int64(TTLDefault)
	var flags, mode, compare, options, until, by uint64
	switch {
	case op == uint64(OpGet) && left <= 2:
	case op == uint64(OpSet) && left >= leastSet-leastGet:
		value, b = shortText(b)
		if left--; left > 0 {
			if isNil(b) {
				b = b[1:]
			} else {
				var ms uint64
				ms, b = shortUint(b)
				ttl = int64(min(ms, MaxTTL+1))
			}
			left--
		}
		flags, b = shortOptional(b, &left)
		mode, b = shortOptional(b, &left)
		compare, b = shortOptional(b, &left)
	default:
		return false
	}
	options, b = shortOptional(b, &left)
	if Op(op) == OpSet {
		until, b = shortOptional(b, &left)
	}
	by, b = shortOptional(b, &left)
	if b == nil || len(b) > 0 || timeout > MaxTimeout || ttl > MaxTTL || flags > math.MaxUint32 ||
		mode >= uint64(modeCount) || options&^uint64(ops[op].options) != 0 || until > math.MaxInt64 {
		return false
	}
	if Op(op) == OpSet && options&^uint64(AckAll) != 0 {
		return false // these depend on the mode
	}
	r.ID, r.Op, r.TimeoutMS, r.Namespace, r.Key = id, Op(op), uint32(timeout), namespace, key
	r.Options, r.By = Options(options), by
	if r.Op == OpSet {
		r.Value, r.TTLMS, r.Flags, r.Mode = value, ttl, uint32(flags), Mode(mode)
		r.Compare, r.UntilNS = compare, until
	}
	return true
}

func isNil(b []byte) bool { return len(b) > 0 && b[0] == 0xc0 }

// shortOptional reads one of the left unsigned numbers at the end of a request. One that is
// nil or left out is zero.
func shortOptional(b []byte, left *int) (v uint64, rest []byte) {
	switch {
	case *left <= 0:
		return 0, b
	case isNil(b):
		v, rest = 0, b[1:]
	default:
		v, rest = shortUint(b)
	}
	*left--
	return v, rest
}

// shortUint reads an unsigned number. rest is nil if there is none, here and below, and if
// b is nil.
func shortUint(b []byte) (v uint64, rest []byte) {
	if len(b) > 0 && b[0] <= 0x7f {
		return uint64(b[0]), b[1:]
	}
	return sizedUint(b)
}

func sizedUint(b []byte) (v uint64, rest []byte) {
	switch {
	case len(b) >= 2 && b[0] == 0xcc:
		return uint64(b[1]), b[2:]
	case len(b) >= 3 && b[0] == 0xcd:
		return uint64(binary.BigEndian.Uint16(b[1:])), b[3:]
	case len(b) >= 5 && b[0] == 0xce:
		return uint64(binary.BigEndian.Uint32(b[1:])), b[5:]
	case len(b) >= 9 && b[0] == 0xcf:
		return binary.BigEndian.Uint64(b[1:]), b[9:]
	}
	return 0, nil
}

// shortText reads a bin, or a str of less than 32 bytes.
func shortText(b []byte) (v, rest []byte) {
	var head, n int
	switch {
	case len(b) >= 2 && b[0] == 0xc4:
		head, n = 2, int(b[1])
	case len(b) >= 1 && b[0] >= 0xa0 && b[0] <= 0xbf:
		head, n = 1, int(b[0]&0x1f)
	case len(b) >= 3 && b[0] == 0xc5:
		head, n = 3, int(binary.BigEndian.Uint16(b[1:]))
	case len(b) >= 5 && b[0] == 0xc6:
		head, n = 5, int(binary.BigEndian.Uint32(b[1:]))
	default:
		return nil, nil
	}
	if n > len(b)-head {
		return nil, nil
	}
	return b[head : head+n], b[head+n:]
}
