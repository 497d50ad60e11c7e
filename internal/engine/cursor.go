package engine

import (
	"encoding/binary"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// cursorSize is the length of a cursor of KEYS: a position, and the epoch of the process
// whose store has it.
//
//	epoch 8 B │ shard 2 B │ root 2 B │ rest 8 B, big-endian
const cursorSize = 20

func appendCursor(b []byte, p segment.Position, e kv.Epoch) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(e))
	b = binary.BigEndian.AppendUint16(b, p.Shard)
	b = binary.BigEndian.AppendUint16(b, p.Root)
	return binary.BigEndian.AppendUint64(b, p.Rest)
}

// parseCursor reads a cursor of the process with the given epoch. nil is the beginning. It
// does not know whether the store has the position.
func parseCursor(cursor []byte, e kv.Epoch) (p segment.Position, bad *wire.Error) {
	switch {
	case cursor == nil:
		return p, nil
	case len(cursor) != cursorSize:
		return p, wire.Errorf(wire.BadRequest,
			"a cursor of %d bytes: give the cursor of the answer before, or none for the first page", len(cursor))
	case kv.Epoch(binary.BigEndian.Uint64(cursor)) != e:
		return p, wire.Errorf(wire.BadRequest,
			"the cursor is of another host, or of this one before its restart: begin again without a cursor")
	}
	return segment.Position{
		Shard: binary.BigEndian.Uint16(cursor[8:]), Root: binary.BigEndian.Uint16(cursor[10:]),
		Rest: binary.BigEndian.Uint64(cursor[12:]),
	}, nil
}
