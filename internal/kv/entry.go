package kv

// Entry is a key's value with everything that is sent with it.
type Entry struct {
	Key   Key
	Value []byte
	Facts
}

// Facts are what an entry says of itself beside its key and its value. Every tier passes them on
// whole, so that another fact is a field here and a few bytes in each codec: of the store
// (l2/segment/entry.go), of messages (internal/wire/facts.go), of the shared memory (internal/shm/region.go).
//
// A read returns them in registers. So they have no pointer, no struct here has more than four
// fields, and together with the size of a value they take at most 32 bytes: if they take more, a hit
// takes a fifth longer.
type Facts struct {
	Version  Version  // of the write; compare-and-set compares it
	Deadline Deadline // its end, on this host's boot clock
	Attributes
	Kind Kind
}

// Attributes are what the writer says of a value. The cache keeps them with it and returns them.
type Attributes struct {
	Flags uint32 // the client's own mark for its encoding; opaque here
}

// Kind is what an entry stands for.
type Kind uint8

const (
	Present Kind = iota // a value
	Stale               // a value that has ended, for reads that accept a stale one
	Absent              // no value: the origin says that there is none
)

// The encodings of values, in the low 8 bits of a value's flags. docs/CLIENTS.md specifies
// them for clients in all languages. The cache itself does not look at them.
const (
	Bytes   uint32 = 0
	Integer uint32 = 2
	Text    uint32 = 16
	Msgpack uint32 = 32

	EncodingMask uint32 = 0xff
)
