package gossip

import (
	"fmt"

	"github.com/tinylib/msgp/msgp"
)

// Meta is what a node tells all others about itself, a msgpack array of its fields. A
// later version may add fields at the end.
type Meta struct {
	Address    string // of its server for sidecars, host:port
	Epoch      uint64
	Weight     uint32
	MinVersion int // of the protocol between sidecars
	MaxVersion int
	In         bool
	State      uint64 // counts the changes of Weight and In
}

const (
	maxMeta    = 512 // bytes; memberlist's bound, beyond which it panics
	metaFields = 7
)

func (m *Meta) encode() ([]byte, error) {
	b := msgp.AppendArrayHeader(nil, metaFields)
	b = msgp.AppendString(b, m.Address)
	b = msgp.AppendUint64(b, m.Epoch)
	b = msgp.AppendUint32(b, m.Weight)
	b = msgp.AppendInt(b, m.MinVersion)
	b = msgp.AppendInt(b, m.MaxVersion)
	b = msgp.AppendBool(b, m.In)
	b = msgp.AppendUint64(b, m.State)
	if len(b) > maxMeta {
		return nil, fmt.Errorf("gossip: meta of %d bytes, %d is the most: give a shorter peer address than %.40q",
			len(b), maxMeta, m.Address)
	}
	return b, nil
}

// decodeMeta reads what another node tells about itself. It ignores what follows the
// known fields, so it never reads nested data.
func decodeMeta(b []byte) (m Meta, err error) {
	if len(b) > maxMeta {
		return m, fmt.Errorf("gossip: meta of %d bytes, %d is the most", len(b), maxMeta)
	}
	fields, b, err := msgp.ReadArrayHeaderBytes(b)
	if err == nil && fields < metaFields {
		err = fmt.Errorf("%d fields, %d is the least", fields, metaFields)
	}
	b, err = read(&m.Address, b, err, msgp.ReadStringBytes)
	b, err = read(&m.Epoch, b, err, msgp.ReadUint64Bytes)
	b, err = read(&m.Weight, b, err, msgp.ReadUint32Bytes)
	b, err = read(&m.MinVersion, b, err, msgp.ReadIntBytes)
	b, err = read(&m.MaxVersion, b, err, msgp.ReadIntBytes)
	b, err = read(&m.In, b, err, msgp.ReadBoolBytes)
	_, err = read(&m.State, b, err, msgp.ReadUint64Bytes)
	if err != nil {
		return Meta{}, fmt.Errorf("gossip: meta that is none of this program's: %w", err)
	}
	return m, nil
}

// read reads one field, unless an earlier one has failed.
func read[T any](v *T, b []byte, err error, f func([]byte) (T, []byte, error)) ([]byte, error) {
	if err == nil {
		*v, b, err = f(b)
	}
	return b, err
}
