package gossip

import (
	"bytes"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Meta is what a node tells of itself to all. A later version may add fields at
// its end.
type Meta struct {
	_msgpack struct{} `msgpack:",as_array"`

	Address    string // of its server for sidecars, host:port
	Epoch      uint64
	Weight     uint32
	MinVersion int // of the protocol between sidecars
	MaxVersion int
	In         bool
}

// maxMeta is memberlist's bound, in bytes; it panics beyond.
const maxMeta = 512

func (m *Meta) encode() ([]byte, error) {
	b, err := msgpack.Marshal(m)
	if err == nil && len(b) > maxMeta {
		err = fmt.Errorf("gossip: meta of %d bytes, %d is the most: give a shorter peer address", len(b), maxMeta)
	}
	return b, err
}

// decodeMeta reads what another node tells of itself.
func decodeMeta(b []byte) (m Meta, err error) {
	if len(b) == 0 || len(b) > maxMeta || b[0]&0xf0 != 0x90 || int(b[0]&0x0f) < metaFields {
		return m, fmt.Errorf("gossip: meta of %d bytes is none of this program's", len(b))
	}
	// Flat by what its decoder asks for, and short: nothing to exhaust.
	d := msgpack.GetDecoder()
	defer msgpack.PutDecoder(d)
	d.ResetReader(bytes.NewReader(b[1:]))
	for _, field := range []any{&m.Address, &m.Epoch, &m.Weight, &m.MinVersion, &m.MaxVersion, &m.In} {
		if err := d.Decode(field); err != nil {
			return m, fmt.Errorf("gossip: meta: %w", err)
		}
	}
	return m, nil
}

const metaFields = 6
