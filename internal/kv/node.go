package kv

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"math/bits"
)

// Epoch is a number that grows with each start of a process. It distinguishes a node from
// earlier processes of the same name.
type Epoch uint64

// epochRandom is the number of random bits of an epoch: two processes of one name may
// start in the same millisecond.
const epochRandom = 22

// NewEpoch returns the epoch of a process that starts at wall, in milliseconds since the
// Unix epoch.
func NewEpoch(wall int64, random uint32) Epoch {
	return Epoch(wall)<<epochRandom | Epoch(random%(1<<epochRandom))
}

func (e Epoch) String() string { return fmt.Sprintf("%016x", uint64(e)) }

// Process is one run of a node.
type Process struct {
	Node  NodeID
	Epoch Epoch
}

func (p Process) String() string { return string(p.Node) + "/" + p.Epoch.String()[8:] }

// Compare orders processes by name, then by epoch.
func (p Process) Compare(o Process) int {
	return cmp.Or(cmp.Compare(p.Node, o.Node), cmp.Compare(p.Epoch, o.Epoch))
}

// PartitionSet is a set of partitions, as bits.
type PartitionSet []uint64

// NewPartitionSet returns an empty set for partitions below n.
func NewPartitionSet(n int) PartitionSet { return make(PartitionSet, (n+63)/64) }

// Add adds p to the set, which must be large enough.
func (s PartitionSet) Add(p uint16) { s[p/64] |= 1 << (p % 64) }

// Remove removes p from the set.
func (s PartitionSet) Remove(p uint16) { s[p/64] &^= 1 << (p % 64) }

// Has reports whether p is in the set.
func (s PartitionSet) Has(p uint16) bool {
	return int(p/64) < len(s) && s[p/64]&(1<<(p%64)) != 0
}

// Contains reports whether all of o is in the set.
func (s PartitionSet) Contains(o PartitionSet) bool {
	for i, w := range o {
		if i >= len(s) && w != 0 || i < len(s) && w&^s[i] != 0 {
			return false
		}
	}
	return true
}

// Len returns the number of partitions in the set.
func (s PartitionSet) Len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// Empty reports whether the set is empty.
func (s PartitionSet) Empty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return true
}

// Bytes returns the set as it is sent: one bit per partition, little-endian, without the
// zero bytes at the end.
func (s PartitionSet) Bytes() []byte {
	b := make([]byte, 0, 8*len(s))
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	for len(b) > 0 && b[len(b)-1] == 0 {
		b = b[:len(b)-1]
	}
	return b
}

// PartitionsOf is the inverse of Bytes. It drops bits beyond the last partition.
func PartitionsOf(b []byte) PartitionSet {
	s := NewPartitionSet(Partitions)
	for i, v := range b {
		if i/8 < len(s) {
			s[i/8] |= uint64(v) << (8 * (i % 8))
		}
	}
	return s
}

// All yields the partitions of the set in order.
func (s PartitionSet) All() iter.Seq[uint16] {
	return func(yield func(uint16) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(uint16(i*64 + bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}
