package kv

// The encodings of values, in the low 8 bits of a value's flags. docs/CLIENTS.md specifies
// them for clients in all languages. The cache itself does not look at them.
const (
	Bytes   uint32 = 0
	Integer uint32 = 2
	Text    uint32 = 16
	Msgpack uint32 = 32

	EncodingMask uint32 = 0xff
)
