package ownership

import (
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/testing/testenv"
)

func members(n int, weight func(i int) uint32) []RingMember {
	list := make([]RingMember, n)
	for i := range list {
		list[i] = RingMember{kv.NodeID(fmt.Sprintf("node-%04d", i)), weight(i)}
	}
	return list
}

func equal(int) uint32 { return 256 }

func unequal(i int) uint32 { return uint32(64 << (i % 4)) }

func bound(m RingMember, list []RingMember) int {
	total := uint64(0)
	for _, o := range list {
		total += uint64(o.Weight)
	}
	return int(math.Ceil(1.10*float64(kv.Partitions)*float64(m.Weight)/float64(total) - 1e-9))
}

func TestBalance(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 10, 100, 1000} {
		for name, weight := range map[string]func(int) uint32{"equal": equal, "unequal": unequal} {
			if n == 1000 && !thorough() {
				continue
			}
			table := NewRing(members(n, weight))
			sum := 0
			for i, c := range table.Counts() {
				sum += c
				if m := table.Members()[i]; c > bound(m, table.Members()) {
					t.Errorf("%d %s members: %s owns %d, at most %d", n, name, m.Node, c, bound(m, table.Members()))
				}
			}
			if sum != kv.Partitions {
				t.Errorf("%d %s members own %d partitions", n, name, sum)
			}
		}
	}
}

// moved returns the partitions that have another owner in next.
func moved(t, next *Ring) (list []uint16) {
	for p := range kv.Partitions {
		if t.Owner(uint16(p)) != next.Owner(uint16(p)) {
			list = append(list, uint16(p))
		}
	}
	return list
}

// TestAgreement checks that any order gives the same table.
func TestAgreement(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	list := members(37, func(int) uint32 { return 1 + rnd.Uint32N(1<<20) })
	want := NewRing(list)
	for range 20 {
		shuffled := slices.Clone(list)
		rnd.Shuffle(len(list), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if moved := moved(want, NewRing(shuffled)); len(moved) > 0 {
			t.Fatalf("%d partitions have another owner in another order", len(moved))
		}
	}
}

// TestGoldenRings pins tables. If another architecture, compiler or library computed a
// different table, a cluster of both would split.
func TestGoldenRings(t *testing.T) {
	for _, tc := range []struct {
		n      int
		weight func(int) uint32
		want   uint64
	}{{3, equal, 0x3c3291038bfd23c3}, {10, unequal, 0x8c42013a5af86cd9}, {100, unequal, 0xbdf0a4f07fef346e}} {
		h := fnv.New64a()
		table := NewRing(members(tc.n, tc.weight))
		for p := range kv.Partitions {
			h.Write([]byte(table.Owner(uint16(p))))
		}
		if got := h.Sum64(); got != tc.want {
			t.Errorf("%d members: table %#x, want %#x", tc.n, got, tc.want)
		}
	}
}

// TestMovement checks that joins and leaves move little more than they must.
func TestMovement(t *testing.T) {
	testenv.Takes(t, time.Second)
	for _, tc := range []struct {
		n    int
		most float64
	}{{3, 1.1}, {10, 1.1}, {100, 1.1}, {300, 1.7}, {1000, 1.7}} {
		if tc.n > 300 && !thorough() {
			continue
		}
		for name, weight := range map[string]func(int) uint32{"equal": equal, "unequal": unequal} {
			list := members(tc.n, weight)
			before := NewRing(list)
			var worst, sum float64
			tries := max(1, min(tc.n, 600/tc.n))
			for i := range tries {
				gone := i * tc.n / tries
				after := NewRing(append(slices.Clone(list[:gone]), list[gone+1:]...))
				// A leave must move the partitions of the leaving member.
				// Its return, which is a join, moves the same ones back.
				ratio := float64(len(moved(before, after))) / float64(before.Counts()[gone])
				worst = max(worst, ratio)
				sum += ratio
			}
			t.Logf("%4d %-7s members: movement %.3f × the minimum on average, %.3f at worst", tc.n, name, sum/float64(tries), worst)
			if sum/float64(tries) > tc.most {
				t.Errorf("%d %s members: movement %.3f × the minimum, at most %.1f", tc.n, name, sum/float64(tries), tc.most)
			}
		}
	}
}

func TestNoWeight(t *testing.T) {
	for _, list := range [][]RingMember{nil, {{"a", 0}}} {
		table := NewRing(list)
		if o := table.Owner(5); o != "" {
			t.Errorf("%v: owner %q", list, o)
		}
	}
	table := NewRing([]RingMember{{"a", 0}, {"b", 1}})
	for p := range kv.Partitions {
		if o := table.Owner(uint16(p)); o != "b" {
			t.Fatalf("partition %d belongs to %q", p, o)
		}
	}
}

func TestNegLog2(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	last := uint64(math.MaxUint64)
	for _, x := range []uint64{0, 1, 2, 3, 1 << 20, 1<<63 - 1, 1 << 63, 1<<64 - 2, 1<<64 - 1} {
		if got := negLog2(x); got > last || got == 0 {
			t.Errorf("negLog2(%#x) = %d after %d: it must fall, and stay above 0", x, got, last)
		} else {
			last = got
		}
	}
	for range 100_000 {
		x := rnd.Uint64() >> rnd.IntN(64)
		want := 64 - math.Log2(float64(x)+1)
		got := float64(negLog2(x)) / (1 << logFraction)
		if math.Abs(got-want) > 1e-7 {
			t.Fatalf("negLog2(%#x) = %.12f, want %.12f", x, got, want)
		}
	}
}

func BenchmarkNewRing(b *testing.B) {
	for _, n := range []int{10, 100, 1000} {
		list := members(n, unequal)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				NewRing(list)
			}
		})
	}
}
