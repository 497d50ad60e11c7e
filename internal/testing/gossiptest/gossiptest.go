// Package gossiptest makes gossip messages as a stranger could send them, for tests.
package gossiptest

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"hash/crc32"
	"net"
	"slices"
)

// The types of messages, as memberlist numbers them.
const (
	Ping         = 0
	SuspectType  = 3
	AliveType    = 4
	DeadType     = 5
	PushPull     = 6
	CompoundType = 7
	User         = 8
	CompressType = 9
	CRCType      = 12
)

// Raw encodes a msgpack string or byte string.
func Raw[T string | []byte](s T) []byte {
	if len(s) < 32 {
		return append([]byte{0xa0 | byte(len(s))}, s...)
	}
	return append([]byte{0xda, byte(len(s) >> 8), byte(len(s))}, s...)
}

// U32 encodes a msgpack number of 32 bits.
func U32(v uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0xce}, v) }

// U64 encodes a msgpack number of 64 bits.
func U64(v uint64) []byte { return binary.BigEndian.AppendUint64([]byte{0xcf}, v) }

// Map encodes a msgpack map. The arguments are key, value, key, value ...
func Map(pairs ...[]byte) []byte {
	return slices.Concat([]byte{0x80 | byte(len(pairs)/2)}, bytes.Join(pairs, nil))
}

// Labelled puts a cluster's name before a packet or a stream.
func Labelled(cluster string, b []byte) []byte {
	return slices.Concat([]byte{244, byte(len(cluster))}, []byte(cluster), b)
}

// Meta encodes what a node announces about itself.
func Meta(address string, epoch uint64, weight uint32, in bool, state uint64) []byte {
	b := byte(0xc2)
	if in {
		b = 0xc3
	}
	return slices.Concat([]byte{0x97}, Raw(address), U64(epoch), U32(weight), []byte{1, 1, b}, U64(state))
}

// Alive encodes the message that a node is alive.
func Alive(node string, ip net.IP, port int, incarnation uint32, meta []byte) []byte {
	return append([]byte{AliveType}, Map(Raw("Incarnation"), U32(incarnation), Raw("Node"), Raw(node),
		Raw("Addr"), Raw([]byte(ip)), Raw("Port"), U32(uint32(port)),
		Raw("Meta"), Raw(meta), Raw("Vsn"), Raw([]byte{1, 5, 2, 0, 0, 0}))...)
}

// State encodes the state of a node in an exchange.
func State(node string, ip net.IP, port int, incarnation uint32, meta []byte) []byte {
	return Map(Raw("Name"), Raw(node), Raw("Addr"), Raw([]byte(ip)),
		Raw("Port"), U32(uint32(port)), Raw("Meta"), Raw(meta),
		Raw("Incarnation"), U32(incarnation), Raw("State"), []byte{0}, Raw("Vsn"), Raw([]byte{1, 5, 2, 0, 0, 0}))
}

// Exchange encodes a node's list of the members that it knows. The header announces their
// number as announced.
func Exchange(announced uint32, states ...[]byte) []byte {
	head := Map(Raw("Nodes"), U32(announced), Raw("UserStateLen"), []byte{0}, Raw("Join"), []byte{0xc2})
	return slices.Concat([]byte{PushPull}, head, bytes.Join(states, nil))
}

// Gone encodes the message that a node is dead or suspect.
func Gone(kind byte, node, from string, incarnation uint32) []byte {
	return append([]byte{kind},
		Map(Raw("Incarnation"), U32(incarnation), Raw("Node"), Raw(node), Raw("From"), Raw(from))...)
}

// Compound puts messages into one packet.
func Compound(messages ...[]byte) []byte {
	b := []byte{CompoundType, byte(len(messages))}
	for _, m := range messages {
		b = binary.BigEndian.AppendUint16(b, uint16(len(m)))
	}
	return slices.Concat(b, bytes.Join(messages, nil))
}

// Compressed compresses a message.
func Compressed(message []byte) []byte {
	var z bytes.Buffer
	w := lzw.NewWriter(&z, lzw.LSB, 8)
	_, _ = w.Write(message)
	_ = w.Close()
	packed := binary.BigEndian.AppendUint32([]byte{0xdb}, uint32(z.Len()))
	return append([]byte{CompressType}, Map(Raw("Algo"), []byte{0}, Raw("Buf"), append(packed, z.Bytes()...))...)
}

// Summed puts a checksum before a packet.
func Summed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{CRCType}, crc32.ChecksumIEEE(message)), message...)
}

// PingOf encodes a ping of node in the name of from.
func PingOf(from, node string) []byte {
	return append([]byte{Ping}, Map(Raw("SeqNo"), U32(1), Raw("Node"), Raw(node), Raw("SourceNode"), Raw(from))...)
}
