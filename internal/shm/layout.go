package shm

import (
	"sync/atomic"
	"unsafe"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Magic begins every region, of every layout: "cshmem\r\n" as a little-endian number.
const Magic = 0x0a0d6d656d687363

// Layout is the version of the layout that this package writes and reads.
const Layout = 1

// The states of a region.
const (
	Serving = 1
	Closed  = 2
)

// Places of the header's words. Those of magic, layout, size and state are the same in every
// layout, so that any sidecar can end the region of any other.
const (
	atMagic   = 0
	atLayout  = 8
	atSize    = 16 // bytes of the file
	atBuckets = 24 // of the index, a power of two
	atLines   = 32 // of the log
	atEpoch   = 40 // of the sidecar's process
	atID      = 48 // of the file, random
	atBound   = 56 // ns: the cluster's max_staleness
	atState   = 128
	atCounter = 192 // raised before each answer to SHARED
	atTail    = 256 // the first position whose bytes are not being replaced
)

// Places and sizes of the sections.
const (
	atNames    = 4096
	nameSize   = 128
	atOwners   = atNames + kv.MaxNamespaces*nameSize
	atParts    = 40960 // behind MaxOwners words, on the next page
	atIndex    = atParts + 8*kv.Partitions
	bucketSize = 64
	slotsIn    = 8 // slots of a bucket

	// MaxOwners is the number of owners that entries of one region may have. Owner 0 is
	// this host.
	MaxOwners = 256

	lineSize  = 64
	chunk     = 1024 // lines by which the tail moves at the least
	posBits   = 48
	posMask   = 1<<posBits - 1
	tagShift  = 32 // the tag is these 16 bits of the hash
	headSize  = 88 // of an entry
	kindValue = 0
	kindNone  = 1 // the origin has no such key
)

// Places in the line of a namespace.
const (
	nsIncarnation = 0 // zero: not shared
	nsGeneration  = 8
	nsBound       = 16 // ns
	nsSeed        = 24
	nsNameLen     = 32 // 8 bytes
	nsName        = 40
)

// Places in the head of an entry. The checksum covers the head before it, key and value.
const (
	enPosition    = 0
	enHash        = 8
	enIncarnation = 16
	enNamespaceG  = 24
	enPartitionG  = 32
	enDeadline    = 40 // ns of the boot clock; zero: none
	enVersion     = 48
	enNamespace   = 56 // 4 bytes
	enOwner       = 60 // 4 bytes
	enFlags       = 64 // 4 bytes
	enKeyLen      = 68 // 4 bytes
	enValueLen    = 72 // 4 bytes
	enKind        = 76 // 4 bytes
	enSum         = 80 // xxh3 of the value, seeded with that of the key, seeded with that of the head before it
)

// MinSize is the size of the smallest region, in bytes.
const MinSize = 1 << 20

// memory is the bytes of a mapping.
type memory []byte

// word returns a word that changes. at is a multiple of eight within the mapping.
func (m memory) word(at int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&m[at])) }

// shape is the sizes that follow from a header.
type shape struct {
	buckets uint64 // a power of two
	lines   uint64
}

// shapeOf divides a region of a size: a bucket of the index for each KiB, and the rest for
// the log.
func shapeOf(size int64) shape {
	s := shape{buckets: 1}
	for s.buckets*2 <= uint64(size)/1024 {
		s.buckets *= 2
	}
	s.lines = (uint64(size) - atIndex - s.buckets*bucketSize) / lineSize
	return s
}

// fits reports whether index and log lie within size bytes, and the log has room for any
// entry.
func (s shape) fits(size int) bool {
	const most = 1 << 40 // no product below overflows
	if s.buckets == 0 || s.buckets&(s.buckets-1) != 0 || s.buckets > most/bucketSize || s.lines > most/lineSize {
		return false
	}
	return s.lines >= 4*chunk && atIndex+s.buckets*bucketSize+s.lines*lineSize <= uint64(size)
}

func (s shape) bucket(h kv.Hash) uint64 { return uint64(h) & (s.buckets - 1) }

func (s shape) atSlot(bucket uint64, i int) int { return atIndex + int(bucket)*bucketSize + 8*i }

// atLine returns the place of a position's first byte.
func (s shape) atLine(position uint64) int {
	return atIndex + int(s.buckets)*bucketSize + int(position%s.lines)*lineSize
}

// linesOf returns the lines of an entry with so many bytes of key and value.
func linesOf(bytes int) uint64 { return uint64(headSize+bytes+lineSize-1) / lineSize }

func tagOf(h kv.Hash) uint16 { return uint16(uint64(h) >> tagShift) }

func slotFor(h kv.Hash, position uint64) uint64 { return uint64(tagOf(h))<<posBits | position }
