package peer

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Read reads the body of a request from a process that was greeted, and holds it
// to that: a body that names its sender names this process, or nothing of it
// counts. It is the only way in which bodies of other sidecars are read.
func Read(from kv.Process, q *wire.Request, v any) *wire.Error {
	if err := wire.UnmarshalBody(q.Body, v); err != nil {
		return wire.Errorf(wire.BadRequest, "%s: %v", q.Op, err)
	}
	m, ok := v.(wire.Sent)
	if !ok {
		return nil
	}
	for _, p := range m.Senders() {
		if p.Node != string(from.Node) || p.Epoch != uint64(from.Epoch) {
			return wire.Errorf(wire.Unauthorized, "%s in the name of %s: this connection is of %s, "+
				"and each process speaks for itself alone", q.Op, word(p.Node), from)
		}
	}
	return nil
}
