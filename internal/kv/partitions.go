package kv

import (
	"encoding/binary"
	"iter"
	"math/bits"
	"slices"
)

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

// A packed set of partitions begins with a byte that names the encoding. The
// shorter of two is used. setBits: the bits, little-endian, without the zeros at the
// end. setGaps: for each partition in the set, the number of absent partitions since
// the last present one, as a varint. In a cluster of many nodes each node has few
// partitions, and polls carry the sets of all.
const (
	setBits = 0
	setGaps = 1
)

// Packed returns the set in its shorter encoding; nil for no set.
func (s PartitionSet) Packed() []byte {
	if s == nil {
		return nil
	}
	return PackPartitions(slices.AppendSeq(make([]uint16, 0, s.Len()), s.All()))
}

// PackPartitions is Packed for a list of partitions in ascending order.
func PackPartitions(list []uint16) []byte {
	if len(list) == 0 {
		return []byte{setGaps}
	}
	asBits := 1 + int(list[len(list)-1])/8 + 1 // bytes
	b := make([]byte, 1, min(asBits, 1+2*len(list)))
	b[0] = setGaps
	next := uint16(0)
	for _, p := range list {
		if b = binary.AppendUvarint(b, uint64(p-next)); len(b) > asBits {
			break
		}
		next = p + 1
	}
	if len(b) <= asBits {
		return b
	}
	b = make([]byte, asBits)
	b[0] = setBits
	for _, p := range list {
		b[1+p/8] |= 1 << (p % 8)
	}
	return b
}

// UnpackedSet is the inverse of Packed.
func UnpackedSet(b []byte) PartitionSet {
	s := NewPartitionSet(Partitions)
	for _, p := range UnpackPartitions(nil, b) {
		s.Add(p)
	}
	return s
}

// UnpackPartitions appends the partitions of a packed set to dst, and drops those beyond the last
// partition.
func UnpackPartitions(dst []uint16, b []byte) []uint16 {
	if len(b) == 0 {
		return dst
	}
	how, b := b[0], b[1:]
	if how == setBits {
		for i, v := range b[:min(len(b), Partitions/8)] {
			for ; v != 0; v &= v - 1 {
				dst = append(dst, uint16(8*i+bits.TrailingZeros8(v)))
			}
		}
		return dst
	}
	for next := uint64(0); len(b) > 0; next++ {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap >= Partitions-next {
			break
		}
		next += gap
		dst = append(dst, uint16(next))
		b = b[n:]
	}
	return dst
}
