package wire

import (
	"encoding/binary"

	"github.com/tinylib/msgp/msgp"
)

// LengthSize is the size of a frame's length field, in bytes.
const LengthSize = 4

// FrameLength reads the length at the start of b. b must have at least LengthSize bytes.
func FrameLength(b []byte) int { return int(binary.BigEndian.Uint32(b)) }

// BeginFrame appends space for the length. EndFrame fills it in; its argument at is the
// length of dst before BeginFrame.
func BeginFrame(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

// EndFrame completes the frame that begins at dst[at:].
func EndFrame(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at:], uint32(len(dst)-at-LengthSize))
	return dst
}

// PeekID reads the id of a frame. The rest of the frame may be malformed or cut short.
func PeekID(frame []byte) (uint64, bool) {
	_, b, err := msgp.ReadArrayHeaderBytes(frame)
	if err != nil {
		return 0, false
	}
	id, _, err := msgp.ReadUint64Bytes(b)
	return id, err == nil
}
