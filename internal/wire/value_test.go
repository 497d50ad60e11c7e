package wire

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

// TestCheckValue checks values at their bounds, whole and cut at each place.
func TestCheckValue(t *testing.T) {
	lists := func(n int) string { return strings.Repeat("\x91", n) }
	few, many := "\xdd\x00\x10\x00\x00"+strings.Repeat("\xc0", MaxElements), "\xdd\x00\x10\x00\x01"
	for _, c := range []struct {
		name, value string
		want        error
	}{
		{"nothing", "", errShort}, {"two", "\x01\x02", errRest}, {"no type", "\x91\xc1", errType},
		{"all kinds", "\xdc\x00\x0e\xc0\xc2\x7f\xe0\xa1a\xd9\x01a\xc4\x01\x00\xca0000\xcf00000000\xd6\xff0000\xc7\x01\x050" +
			"\x80\x90\x82\x01\x81a\x02\x03\x90", nil},
		{"64 levels", lists(64) + "\x00", nil}, {"65 levels", lists(65) + "\x00", errNested},
		{"a list on level 64", lists(63) + "\x90", nil}, {"a map on level 65", lists(64) + "\x80", errNested},
		{"levels that end", "\x92" + lists(63) + "\x01" + lists(63) + "\x01", nil},
		{"as many as may be", few, nil}, {"more", many + strings.Repeat("\x80", MaxElements+1), errMany},
		{"more, in parts", "\x92" + few + "\x90", errMany}, {"more, claimed", lists(9) + many, errMany},
		{"more keys and values", "\xdf\x00\x08\x00\x01", errMany}, {"a long text", "\xdb\xff\xff\xff\xffa", errShort},
		{"the largest map", "\xdf\xff\xff\xff\xff", errMany},
	} {
		if err := CheckValue([]byte(c.value)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		for i := 0; c.want == nil && i < len(c.value); i += 1 + len(c.value)/20 {
			part := []byte(c.value[:i])
			if err, ok := CheckValue(part), CheckPart(part); !errors.Is(err, errShort) || ok != nil {
				t.Errorf("%s, %d bytes of it: %v, %v", c.name, i, err, ok)
			}
		}
	}
	if n := testing.AllocsPerRun(3, func() { _ = CheckValue([]byte(few)) }); n > 1 { // of the bytes
		t.Errorf("%v allocations", n)
	}
}

// FuzzCheckValue compares it with checkMsgpack, where that has no further bounds.
func FuzzCheckValue(f *testing.F) {
	for _, s := range []string{"92a161c0", "81a16193c201cd0102", "d6ff00000001", "dc0001c40100"} {
		b, err := hex.DecodeString(s)
		testenv.Must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := CheckValue(b), checkMsgpack(b)
		if (got == nil) != (want == nil) && !errors.Is(want, errDepth) && !errors.Is(got, errMany) {
			t.Errorf("%x: %v, want %v", b, got, want)
		}
	})
}
