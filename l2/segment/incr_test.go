package segment

import (
	"math"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

func TestIncrUnsigned(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	const top = math.MaxUint64
	for _, tc := range []struct {
		name, value string
		delta       uint64
		down        bool
		sum         uint64
		want        Result
	}{
		{"a sum", "10", 5, false, 15, Stored},
		{"above all signed numbers", "18446744073709551610", 5, false, top, Stored},
		{"beyond 64 bits", "18446744073709551615", 2, false, 1, Stored},
		{"the largest delta", "2", top, false, 1, Stored},
		{"down", "10", 3, true, 7, Stored},
		{"down to zero", "10", 10, true, 0, Stored},
		{"down beyond zero", "10", 11, true, 0, Stored},
		{"spaces behind the digits", "10   ", 1, false, 11, Stored},
		{"a space before the digits", " 10", 1, false, 0, NotNumber},
		{"spaces only", "  ", 1, false, 0, NotNumber},
		{"nothing", "", 1, false, 0, NotNumber},
		{"a negative number", "-1", 1, false, 0, NotNumber},
		{"a number too large", "18446744073709551616", 1, false, 0, NotNumber},
		{"21 bytes", "1                    ", 1, false, 0, NotNumber},
	} {
		end := kv.After(testNow.Boot, time.Hour)
		mustPut(t, s, "n", Write{Value: []byte(tc.value), Facts: kv.Facts{Attributes: kv.Attributes{Flags: 7}, Deadline: end}})
		i := Increment{Delta: int64(tc.delta), Unsigned: true, Decrement: tc.down, Deadline: 1}
		sum, _, d, r := s.Incr(testKey("n"), i, testNow)
		if r != tc.want || uint64(sum) != tc.sum || r == Stored && d != end {
			t.Errorf("%s: %d, deadline %d, %d, want %d, %d, %d", tc.name, uint64(sum), d, r, tc.sum, end, tc.want)
		}
	}
}

// TestIncrConditions checks the version that is compared, and the deadline that a present
// value gets.
func TestIncrConditions(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	end := kv.After(testNow.Boot, time.Hour)
	v := mustPut(t, s, "n", Write{Value: []byte("5")})
	k := testKey("n")
	if _, got, _, r := s.Incr(k, Increment{Delta: 1, Compare: v + 1}, testNow); r != Exists || got != v {
		t.Errorf("another version: %d, %v, want %d, %v", r, got, Exists, v)
	}
	sum, got, d, r := s.Incr(k, Increment{Delta: 1, Compare: v, ResetDeadline: true, Deadline: end}, testNow)
	if r != Stored || sum != 6 || d != end || got <= v {
		t.Errorf("the same version: %d, sum %d, deadline %d, version %v", r, sum, d, got)
	}
	if info, _ := s.Peek(k, testNow.Boot); info.Deadline != end {
		t.Errorf("deadline %d, want %d", info.Deadline, end)
	}
	create := Increment{Create: true, Initial: -1, Unsigned: true, Compare: v}
	if _, _, _, r := s.Incr(testKey("absent"), create, testNow); r != Absent {
		t.Errorf("a version of an absent key: %d, want %d", r, Absent)
	}
	create.Compare = 0
	if sum, _, _, r := s.Incr(testKey("absent"), create, testNow); r != Stored || uint64(sum) != math.MaxUint64 {
		t.Errorf("an initial value of 64 bits: %d, %d", uint64(sum), r)
	}
	if b, _, _ := s.Get(nil, testKey("absent"), NoLimit, testNow.Boot); string(b) != "18446744073709551615" {
		t.Errorf("stored %q", b)
	}
}

// TestDependingWritesCountAsReads checks that a counter which is only counted is as hot as a value that is read.
func TestDependingWritesCountAsReads(t *testing.T) {
	s := newTestStore(t, Config{Size: MinSize})
	hits := func(name string) (n int) {
		for n = range MaxHits + 1 {
			found := false
			s.Scan(func(uint16) bool { return true }, n, testNow.Boot, func(e kv.Entry) bool {
				found = found || string(e.Key.Bytes) == name
				return true
			})
			if found {
				return n
			}
		}
		return -1
	}
	for i := range 3 {
		s.Incr(testKey("counter"), Increment{Delta: 1, Create: true, Initial: 9}, testNow)
		s.Concat(testKey("list"), Write{Value: []byte("item"), Mode: Append}, true, testNow)
		mustPut(t, s, "set", Write{Value: []byte("v")})
		if got := [3]int{hits("counter"), hits("list"), hits("set")}; got != [3]int{i, i, 0} {
			t.Errorf("after %d more: %v", i, got)
		}
	}
	v := mustPut(t, s, "set", Write{Value: []byte("v")})
	if _, r := s.Put(testKey("set"), Write{Value: []byte("longer"), Mode: CompareAndSwap, Compare: v}, testNow); r != Stored || hits("set") != 1 {
		t.Errorf("%v: a compare-and-set counts %d", r, hits("set"))
	}
}
