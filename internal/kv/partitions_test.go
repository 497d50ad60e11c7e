package kv

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"
)

func setOf(list ...uint16) PartitionSet {
	s := NewPartitionSet(Partitions)
	for _, p := range list {
		s.Add(p)
	}
	return s
}

func TestSetTravels(t *testing.T) {
	share := func(of int) PartitionSet {
		rnd := rand.New(rand.NewPCG(1, uint64(of)))
		s := setOf()
		for p := range uint16(Partitions) {
			if rnd.IntN(of) == 0 {
				s.Add(p)
			}
		}
		return s
	}
	for _, test := range []struct {
		name string
		set  PartitionSet
		most int // bytes
	}{
		{"none", setOf(), 1},
		{"first", setOf(0), 2},
		{"last", setOf(Partitions - 1), 4},
		{"two", setOf(0, Partitions-1), 5},
		{"neighbours", setOf(63, 64, 65), 4},
		{"all", share(1), 1 + Partitions/8},
		{"of 3", share(3), 1 + Partitions/8},
		{"of 20", share(20), 900},
		{"of 100", share(100), 260},
	} {
		b := test.set.Packed()
		if got := UnpackedSet(b); !slices.Equal(got, test.set) {
			t.Errorf("%s: %d partitions came of %d", test.name, got.Len(), test.set.Len())
		}
		if len(b) > test.most {
			t.Errorf("%s takes %d bytes, want at most %d", test.name, len(b), test.most)
		}
	}
}

// FuzzSet checks that for any bytes, the decoded partitions exist.
func FuzzSet(f *testing.F) {
	f.Add([]byte{})
	f.Add(setOf(1, 2, 300, Partitions-1).Packed())
	f.Add(bytes.Repeat([]byte{0xff}, 3000))
	f.Add(append([]byte{setBits}, bytes.Repeat([]byte{0xff}, 3000)...))
	f.Add(bytes.Repeat([]byte{setGaps}, 20000))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := UnpackedSet(b)
		if len(s) != Partitions/64 {
			t.Fatalf("%d words", len(s))
		}
		if again := UnpackedSet(s.Packed()); !slices.Equal(s, again) {
			t.Fatalf("%d partitions, and %d once they have travelled", s.Len(), again.Len())
		}
	})
}
