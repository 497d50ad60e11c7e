package cluster

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

func setOf(list ...uint16) kv.PartitionSet {
	s := kv.NewPartitionSet(kv.Partitions)
	for _, p := range list {
		s.Add(p)
	}
	return s
}

func TestSetTravels(t *testing.T) {
	share := func(of int) kv.PartitionSet {
		rnd := rand.New(rand.NewPCG(1, uint64(of)))
		s := setOf()
		for p := range uint16(kv.Partitions) {
			if rnd.IntN(of) == 0 {
				s.Add(p)
			}
		}
		return s
	}
	for _, test := range []struct {
		name string
		set  kv.PartitionSet
		most int // bytes
	}{
		{"none", setOf(), 1},
		{"first", setOf(0), 2},
		{"last", setOf(kv.Partitions - 1), 4},
		{"two", setOf(0, kv.Partitions-1), 5},
		{"neighbours", setOf(63, 64, 65), 4},
		{"all", share(1), 1 + kv.Partitions/8},
		{"of 3", share(3), 1 + kv.Partitions/8},
		{"of 20", share(20), 900},
		{"of 100", share(100), 260},
	} {
		b := toSet(test.set)
		if got := fromSet(b); !slices.Equal(got, test.set) {
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
	f.Add(toSet(setOf(1, 2, 300, kv.Partitions-1)))
	f.Add(bytes.Repeat([]byte{0xff}, 3000))
	f.Add(append([]byte{setBits}, bytes.Repeat([]byte{0xff}, 3000)...))
	f.Add(bytes.Repeat([]byte{setGaps}, 20000))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := fromSet(b)
		if len(s) != kv.Partitions/64 {
			t.Fatalf("%d words", len(s))
		}
		if again := fromSet(toSet(s)); !slices.Equal(s, again) {
			t.Fatalf("%d partitions, and %d once they have travelled", s.Len(), again.Len())
		}
	})
}
