package ownership

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// RingMember is a node that may own partitions.
type RingMember struct {
	Node kv.NodeID
	// Weight is the member's part of the keys relative to other members: the memory
	// that it offers, in any unit that all members use. A member of weight zero owns
	// nothing.
	Weight uint32
}

// Ring is the assigned owner of each partition, a pure function of the members and their weights.
// All nodes that see the same members compute the same ring, on every architecture, because the
// arithmetic is integer throughout. It does not know which node owns a partition at present: see
// Machine. It is immutable.
//
// Owners are chosen by weighted rendezvous hashing (Thaler and Ravishankar, 1998; the
// logarithmic method for weights, Schindelhauer and Schomaker, 2005) under bounded load
// (Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2016).
// Partitions are taken in order. Each goes to the best-ranked node that has not yet
// reached 1.10 times its fair share.
type Ring struct {
	members []RingMember // by name
	owners  [kv.Partitions]uint16
	empty   bool // no member has any weight
}

// Load bound: no node owns more than ⌈1.10 × its fair share⌉ partitions.
const (
	loadNum = 110
	loadDen = 100
)

// NewRing computes the ring of some members, in any order: 65,535 at most, each name once.
func NewRing(members []RingMember) *Ring {
	byName := func(a, b RingMember) int { return cmp.Compare(a.Node, b.Node) }
	t := &Ring{members: slices.SortedFunc(slices.Values(members), byName)}
	total := uint64(0)
	for _, m := range t.members {
		total += uint64(m.Weight)
	}
	if t.empty = total == 0; t.empty {
		return t
	}
	seeds := make([]uint64, len(t.members))
	room := make([]uint64, len(t.members))
	for i, m := range t.members {
		seeds[i] = xxh3.HashString(string(m.Node))
		room[i] = (kv.Partitions*uint64(m.Weight)*loadNum + total*loadDen - 1) / (total * loadDen)
	}
	for p := range t.owners {
		best, bestScore := -1, score{}
		for i, m := range t.members {
			if room[i] == 0 || m.Weight == 0 {
				continue
			}
			if s := rank(uint16(p), seeds[i], m.Weight); best < 0 || s.above(bestScore) {
				best, bestScore = i, s
			}
		}
		// The bounds add up to more than all partitions, so some member has room.
		t.owners[p] = uint16(best)
		room[best]--
	}
	return t
}

// Owner returns the assigned owner of a partition, or "" if no member has any weight.
func (t *Ring) Owner(partition uint16) kv.NodeID {
	if t.empty {
		return ""
	}
	return t.members[t.owners[partition]].Node
}

// OwnerIndex returns the index of that owner in Members, or -1.
func (t *Ring) OwnerIndex(partition uint16) int {
	if t.empty {
		return -1
	}
	return int(t.owners[partition])
}

// Members returns the members by name. The caller must not change the slice.
func (t *Ring) Members() []RingMember { return t.members }

// Counts returns how many partitions each member owns, in the order of Members.
func (t *Ring) Counts() []int {
	n := make([]int, len(t.members))
	if !t.empty {
		for _, o := range t.owners {
			n[o]++
		}
	}
	return n
}

// score is weight / -log2(u), with u uniform in (0,1): the higher the better. It is kept
// as a fraction and compared by cross-multiplication, so no rounding can differ between
// machines. Two nodes tie only if hashes collide; then the first by name stays.
type score struct {
	weight uint64
	log    uint64 // -log2(u), fixed point
}

func (sc score) above(o score) bool {
	// s.weight/s.log > o.weight/o.log
	hi1, lo1 := bits.Mul64(sc.weight, o.log)
	hi2, lo2 := bits.Mul64(o.weight, sc.log)
	return hi1 > hi2 || hi1 == hi2 && lo1 > lo2
}

func rank(partition uint16, seed uint64, weight uint32) score {
	return score{uint64(weight), negLog2(mix(seed ^ uint64(partition)*0x9e3779b97f4a7c15))}
}

// mix is the finalizer of splitmix64 (Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
