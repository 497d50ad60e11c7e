package memcached

import "math"

// unsigned reads a decimal number of up to 64 bits.
func unsigned(b []byte) (n uint64, ok bool) {
	if len(b) > 1 && b[0] == '+' {
		b = b[1:]
	}
	if len(b) == 0 {
		return 0, false
	}
	for _, c := range b {
		d := uint64(c - '0')
		if d > 9 || n > math.MaxUint64/10 || n == math.MaxUint64/10 && d > math.MaxUint64%10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// signed reads a decimal number of up to 63 bits with an optional sign.
func signed(b []byte) (n int64, ok bool) {
	negative := len(b) > 0 && b[0] == '-'
	if negative {
		if b = b[1:]; len(b) > 0 && b[0] == '+' {
			return 0, false
		}
	}
	u, ok := unsigned(b)
	if !ok || u > math.MaxInt64 {
		return 0, false
	}
	if negative {
		return -int64(u), true
	}
	return int64(u), true
}

// parseUint32 reads a number of 32 bits, such as the flags that a client keeps with a value.
func parseUint32(b []byte) (uint32, bool) {
	n, ok := unsigned(b)
	return uint32(n), ok && n <= math.MaxUint32
}

// lengthOf reads the length of a value.
func lengthOf(b []byte) (int, bool) {
	n, ok := unsigned(b)
	return int(n), ok && n <= math.MaxInt32-2
}
