package segment

import (
	"encoding/binary"

	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Header layout; the package comment has the table of fields.
const (
	headerSize = 24
	flagsSize  = 4
	align      = 4
	shortest   = headerSize + align // bytes of an entry of a 1-byte key and no value

	offVersion  = 0
	offDeadline = 8 // 40 bits deadline, 16 bits generation, 8 bits namespace
	offValueLen = 16
	offKeyLen   = 20
	offMarks    = 22
	offBirth    = 23

	markFlags = 1 << 0 // client flags follow the header
	markChain = 1 << 1 // the value continues in the next segments of the chain
	markStale = 1 << 2 // served only to readers that accept a stale value

	markAbsent = 1 << 3 // a negative entry: the origin has no value
	markRead   = 1 << 4 // the entry has been read since it was written
	markCopied = 1 << 5 // and copies of it may be kept elsewhere
)

// header is a decoded entry header. It is nested, and has 32 bytes, for the reason that kv.Facts
// gives.
type header struct {
	version  kv.Version
	deadline kv.Deadline
	valueLen int
	headerRest
}

type headerRest struct {
	keyLen     uint16
	generation uint16
	namespace  kv.NamespaceID
	headerMarks
}

type headerMarks struct {
	marks uint8
	birth uint8 // see quotaQueue
}

func readHeader(b []byte) header {
	b = b[:headerSize]
	word := binary.LittleEndian.Uint64(b[offDeadline:])
	return header{
		version:  kv.Version(binary.LittleEndian.Uint64(b[offVersion:])),
		deadline: kv.Deadline(word & (1<<40 - 1)),
		valueLen: int(binary.LittleEndian.Uint32(b[offValueLen:])),
		headerRest: headerRest{
			keyLen:      binary.LittleEndian.Uint16(b[offKeyLen:]),
			generation:  uint16(word >> 40),
			namespace:   kv.NamespaceID(word >> 56),
			headerMarks: headerMarks{marks: b[offMarks], birth: b[offBirth]},
		},
	}
}

func (h header) write(b []byte) {
	b = b[:headerSize]
	binary.LittleEndian.PutUint64(b[offVersion:], uint64(h.version))
	writeDeadline(b, h)
	binary.LittleEndian.PutUint32(b[offValueLen:], uint32(h.valueLen))
	binary.LittleEndian.PutUint16(b[offKeyLen:], h.keyLen)
	b[offMarks] = h.marks
	b[offBirth] = h.birth
}

// writeDeadline rewrites the word that contains the deadline.
func writeDeadline(b []byte, h header) {
	binary.LittleEndian.PutUint64(b[offDeadline:],
		uint64(h.deadline)|uint64(h.generation)<<40|uint64(h.namespace)<<56)
}

// keyOffset returns the offset of the key from the start of the header.
func (h header) keyOffset() int {
	if h.marks&markFlags != 0 {
		return headerSize + flagsSize
	}
	return headerSize
}

// size returns the bytes of the arena that the entry takes. (The rest of a chain's last
// segment stays unused.)
func (h header) size() int { return alignUp(h.keyOffset() + int(h.keyLen) + h.valueLen) }

func (h header) negative() bool { return h.marks&markAbsent != 0 }

func (h header) payload() int { return int(h.keyLen) + h.valueLen }

func (h header) key(b []byte) []byte {
	off := h.keyOffset()
	return b[off : off+int(h.keyLen)]
}

// value returns the value of an entry that is not a chain.
func (h header) value(b []byte) []byte {
	off := h.keyOffset() + int(h.keyLen)
	return b[off : off+h.valueLen]
}

// marksOf returns the marks of the entry that a write brings. None brings a stale value.
func marksOf(f *kv.Facts) (marks uint8) {
	if f.Flags != 0 {
		marks |= markFlags
	}
	if f.Kind == kv.Absent {
		marks |= markAbsent
	}
	return marks
}

// writeAttributes writes what lies between the header and the key.
func (h header) writeAttributes(b []byte, a kv.Attributes) {
	if h.marks&markFlags != 0 {
		binary.LittleEndian.PutUint32(b[headerSize:], a.Flags)
	}
}

func (h header) attributes(b []byte) (a kv.Attributes) {
	if h.marks&markFlags != 0 {
		a.Flags = binary.LittleEndian.Uint32(b[headerSize:])
	}
	return a
}

func (h header) kind() kv.Kind {
	switch {
	case h.marks&markAbsent != 0:
		return kv.Absent
	case h.marks&markStale != 0:
		return kv.Stale
	}
	return kv.Present
}

// facts returns what the entry at b says of itself.
func (h header) facts(b []byte) kv.Facts {
	return kv.Facts{Version: h.version, Deadline: h.deadline, Attributes: h.attributes(b), Kind: h.kind()}
}

func alignUp(n int) int { return (n + align - 1) &^ (align - 1) }

// never lies after every deadline.
const never = kv.MaxDeadline + 1

// location addresses an entry: 1 + offset into the arena, in units of align. Zero is no
// location.
type location uint64

const locationBits = 36

func (s *Store) locate(seg segmentID, off int) location {
	return location((int64(seg)*int64(s.cfg.SegmentSize)+int64(off))/align + 1)
}

// at returns the arena from an entry's header to the end of its segment.
func (s *Store) at(loc location) []byte {
	seg, off := s.split(loc)
	return s.segmentBytes(seg)[off:]
}

func (s *Store) split(loc location) (segmentID, int) {
	pos := (uint64(loc) - 1) * align
	if s.segmentShift > 0 {
		return segmentID(pos >> s.segmentShift), int(pos & (1<<s.segmentShift - 1))
	}
	size := uint64(s.cfg.SegmentSize)
	return segmentID(pos / size), int(pos % size)
}

func (s *Store) segmentBytes(seg segmentID) []byte {
	size := s.cfg.SegmentSize
	start := int(seg) * size
	return s.arena[start : start+size : start+size]
}
