package wire

import (
	"bytes"
	"math"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// TestShortIsAny compares decodeShort with the general decoder: on GETs and SETs with and
// without each element, on what is left of them if they are cut short, and with each of
// their bytes replaced by others.
func TestShortIsAny(t *testing.T) {
	key, long := []byte("k"), bytes.Repeat([]byte("n"), 64)
	for _, r := range []Request{
		{Op: OpGet, Key: key},
		{Op: OpGet, ID: math.MaxUint64, TimeoutMS: 1000, Namespace: []byte("users"), Key: long, Options: StaleOK | Share},
		{Op: OpGet, ID: 200, Key: bytes.Repeat(key, 300)},
		{Op: OpGet, Key: key, By: 1001<<32 | 7},
		{Op: OpSet, Key: key, Value: key, TTLMS: TTLDefault, By: math.MaxUint64},
		{Op: OpSet, Key: key, Value: []byte{}, TTLMS: TTLDefault},
		{Op: OpSet, ID: 40_000, Key: key, Value: bytes.Repeat(key, 256), TTLMS: TTLDefault, UntilNS: math.MaxInt64},
		{Op: OpSet, Key: key, Value: bytes.Repeat(key, 1<<16), Mode: ModeCAS, Compare: math.MaxUint64},
		{Op: OpSet, Key: key, Value: key, TTLMS: MaxTTL, Attributes: kv.Attributes{Flags: math.MaxUint32}, Mode: ModeAdd, Options: AckAll, UntilNS: 5},
	} {
		frame := AppendRequest(nil, &r)[LengthSize:]
		if !sameDecoded(t, frame) {
			t.Errorf("%x does not take the short way", frame)
		}
		for n := range min(len(frame), 80) {
			sameDecoded(t, frame[:n])
			for _, c := range []byte{0, 1, 4, 0x7f, 0x80, 0x94, 0x95, 0x96, 0x9c, 0x9d, 0xa0, 0xbf, 0xc0, 0xc4, 0xc5, 0xc6,
				0xcc, 0xcd, 0xce, 0xcf, 0xd0, 0xd3, 0xd9, 0xff} {
				other := bytes.Clone(frame)
				other[n] = c
				sameDecoded(t, other)
			}
		}
	}
	for _, r := range []Request{
		{Op: OpLease, Key: key},
		{Op: OpGet, Key: key, TimeoutMS: MaxTimeout + 1},
		{Op: OpGet, Key: key, Options: AckAll},
		{Op: OpSet, Key: key, Value: key, TTLMS: MaxTTL + 1},
		{Op: OpSet, Key: key, Value: key, Mode: modeCount},
		{Op: OpSet, Key: key, Value: key, UntilNS: math.MaxInt64 + 1},
		{Op: OpGet, Namespace: long, Key: key},
	} {
		if frame := AppendRequest(nil, &r)[LengthSize:]; sameDecoded(t, frame) {
			t.Errorf("%x takes the short way", frame)
		}
	}
	for _, frame := range []string{
		"\x95\x01\x03\x00\xc0\xc0",              // GET without a key
		"\x98\x01\x03\x00\xc0\xa1k\x00\x00\x00", // with an element too many
		"\x95\x01\x05\x00\xc0\xa1k",             // SET without a value
		"\x98\x01\x05\x00\xc0\xa1k\xa1v\xc0" + // with flags of more than 32 bits
			"\xcf\x00\x00\x00\x01\x00\x00\x00\x00",
	} {
		if sameDecoded(t, []byte(frame)) {
			t.Errorf("%x takes the short way", frame)
		}
	}
}

// sameDecoded reports whether decodeShort accepts a frame. If so, decodeAny must do so with
// the same result; otherwise the request must be as it was.
func sameDecoded(t *testing.T, frame []byte) bool {
	t.Helper()
	short, long := Request{TTLMS: TTLDefault}, Request{TTLMS: TTLDefault}
	accepted := decodeShort(frame, &short)
	if err := decodeAny(frame, &long); accepted && err != nil {
		t.Fatalf("accepted %x: %v", frame, err)
	}
	if !accepted {
		long = Request{TTLMS: TTLDefault}
	}
	if !sameRequest(&short, &long) {
		t.Fatalf("%x: %+v, want %+v", frame, short, long)
	}
	return accepted
}
