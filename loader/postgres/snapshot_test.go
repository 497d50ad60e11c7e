package postgres

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestSnapshot checks the forms of a snapshot, and which transactions one sees.
func TestSnapshot(t *testing.T) {
	const epoch = 1 << 32
	for _, tc := range []struct {
		text         string
		sees, unseen []uint32
	}{
		{"10:10:", []uint32{0, 3, 9}, []uint32{10, 11, 1000}},
		{"5:10:5,7", []uint32{4, 6, 8, 9}, []uint32{5, 7, 10}},
		{"5:10:7,5", []uint32{6, 8}, []uint32{5, 7}}, // in another order
		{fmt.Sprintf("%d:%d:", epoch+5, epoch+5), []uint32{4, math.MaxUint32, 1<<31 + 6}, []uint32{5, 6, 1<<31 + 4}},
		{fmt.Sprintf("%d:%d:%d", epoch-2, epoch+5, epoch-2), []uint32{math.MaxUint32, 3}, []uint32{math.MaxUint32 - 1, 5}},
		{fmt.Sprintf("%d:%d:", epoch-2, epoch-2), []uint32{math.MaxUint32 - 2}, []uint32{math.MaxUint32, 3, 4}},
		{fmt.Sprintf("%d:%d:%d", 7*epoch+5, 7*epoch+9, 7*epoch+7), []uint32{8, 6}, []uint32{7, 9}},
	} {
		s, err := parseSnapshot(tc.text)
		if err != nil {
			t.Errorf("%s: %v", tc.text, err)
		}
		for _, xid := range tc.sees {
			if !s.Sees(xid) {
				t.Errorf("%s does not see %d", tc.text, xid)
			}
		}
		for _, xid := range tc.unseen {
			if s.Sees(xid) {
				t.Errorf("%s sees %d", tc.text, xid)
			}
		}
	}
	for _, text := range []string{
		"", "1", "1:2", "1:2:3:4", "1::", "1:x:", "1:-2:", "1:2:x", "1:2:3,", "1:2:,", "1:2: 3", "1:18446744073709551616:",
	} {
		if s, err := parseSnapshot(text); err == nil || !strings.Contains(err.Error(), "has an unknown form") {
			t.Errorf("%q: %+v, %v", text, s, err)
		}
	}
}

// TestCovers checks that a snapshot covers another one if it sees all that is done for that.
func TestCovers(t *testing.T) {
	for _, tc := range []struct {
		s, other string
		want     bool
	}{
		{"10:10:", "10:10:", true},
		{"5:10:5", "5:10:5", true},
		{"11:11:", "5:10:5", true},
		{"5:11:5,10", "5:10:5", true}, // 10 had not begun
		{"9:9:", "10:10:", false},
		{"7:12:7", "5:10:5", false}, // 7 was done
		{"5:12:5", "10:10:", false},
		{"10:12:10", "10:10:", true},
	} {
		s, err := parseSnapshot(tc.s)
		other, wrong := parseSnapshot(tc.other)
		if err != nil || wrong != nil || s.Covers(other) != tc.want {
			t.Errorf("%s covers %s: %v, want %v: %v, %v", tc.s, tc.other, !tc.want, tc.want, err, wrong)
		}
	}
}

// TestAfter checks that a snapshot is after an earlier one once all has ended that had begun, also what is not
// named, since nothing behind it had ended.
func TestAfter(t *testing.T) {
	for _, tc := range []struct {
		s, earlier string
		next       uint64 // of the earlier one
		want       bool
	}{
		{"10:10:", "10:10:", 10, true},
		{"10:10:", "10:10:", 11, false}, // 10 had begun
		{"10:12:10", "10:10:", 11, false},
		{"11:11:", "10:10:", 11, true},
		{"11:12:11", "10:10:", 11, true}, // 11 had not
		{"5:12:5", "5:10:5,7", 10, false},
		{"10:12:10", "5:10:5,7", 10, true},
		{"10:12:10", "5:10:5,7", 11, false},
		{"10:10:", "5:10:5,7", 11, false},
	} {
		s, err := parseSnapshot(tc.s)
		earlier, wrong := parseSnapshot(tc.earlier)
		earlier.Next = tc.next
		if err != nil || wrong != nil || s.After(earlier) != tc.want {
			t.Errorf("%s is after %s, %d: %v, want %v: %v, %v", tc.s, tc.earlier, tc.next, !tc.want, tc.want, err, wrong)
		}
	}
}

// FuzzSnapshot checks any two texts. What can be read does not depend on the order of its numbers. It
// sees of the 4 billion transactions around its end those before it that had ended, across the end of 32
// bits. Each snapshot covers itself, and one that covers another sees all that this one sees.
func FuzzSnapshot(f *testing.F) {
	for _, seed := range []string{
		"10:10:", "5:10:5,7", "4294967290:4294967301:4294967294,4294967296", "1:2:3:4", "1:x:", "7:9:7,,8", "3:18446744073709551615:4",
	} {
		f.Add(seed, "6:12:11,6", uint32(5))
	}
	f.Add("4294967290:4294967301:4294967294", "4294967290:4294967300:4294967294", uint32(10))
	f.Fuzz(func(t *testing.T, text, another string, back uint32) {
		s, err := parseSnapshot(text)
		if err != nil {
			return
		}
		if len(s.Open) > len(text) || !slices.IsSorted(s.Open) || !s.Covers(s) {
			t.Fatalf("%q: %+v", text, s)
		}
		for _, x := range append(slices.Clone(s.Open), s.Max-uint64(back), s.Max-1, s.Max, s.Max+uint64(back/2)) {
			if x-s.Max >= 1<<31 && s.Max-x > 1<<31 || uint32(x) == 0 {
				continue // the low half names another one
			}
			if want := x < s.Max && !slices.Contains(s.Open, x); s.Sees(uint32(x)) != want {
				t.Fatalf("%q sees %d: %v", text, x, !want)
			}
		}
		other, err := parseSnapshot(another)
		if err != nil || !s.Covers(other) {
			return
		}
		for _, x := range append(append(slices.Clone(s.Open), other.Open...), other.Max-1, other.Max-uint64(back), s.Max-1) {
			if other.done(x) && !s.done(x) {
				t.Fatalf("%q covers %q, and does not see %d", text, another, x)
			}
		}
	})
}
