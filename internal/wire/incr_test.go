package wire

import (
	"math"
	"testing"
)

// TestIncrNumbers checks which numbers INCR takes, signed and unsigned.
func TestIncrNumbers(t *testing.T) {
	const big = "\xcf\xff\xff\xff\xff\xff\xff\xff\xff"
	for _, tc := range []struct {
		name, delta, initial string
		options              byte
		delta64, initial64   int64
		ok                   bool
	}{
		{"signed", "\xff", "\xc0", 0, -1, 0, true},
		{"signed, the largest", "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", "\xc0", 0, math.MaxInt64, 0, true},
		{"signed, too large", big, "\xc0", 0, 0, 0, false},
		{"signed, initial too large", "\x01", big, 0, 0, 0, false},
		{"unsigned", big, "\x05", 1, -1, 5, true},
		{"unsigned, in the form of a signed number", "\xd0\x05", big, 1, 5, -1, true},
		{"unsigned, negative", "\xff", "\xc0", 1, 0, 0, false},
		{"unsigned, initial negative", "\x01", "\xff", 1, 0, 0, false},
	} {
		options := "\xc0"
		if tc.options != 0 {
			options = "\xcd\x80\x00"
		}
		frame := "\x99\x01\x08\x00\xc0\xa1k" + tc.delta + tc.initial + "\xc0" + options
		var r Request
		err := DecodeRequest([]byte(frame), &r)
		if tc.ok != (err == nil) || tc.ok && (r.Delta != tc.delta64 || r.Initial != tc.initial64) {
			t.Errorf("%s: %d, %d, %v", tc.name, r.Delta, r.Initial, err)
		}
	}
}
