package peer

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Read parses the body of a request from a process that was greeted. If the body names
// its sender, the name must be that process; otherwise the request is UNAUTHORIZED and
// nothing in it counts. All bodies from other sidecars must be read with Read.
func Read(from kv.Process, q *wire.Request, v any) *wire.Error {
	if err := wire.UnmarshalBody(q.Body, v); err != nil {
		return wire.Errorf(wire.BadRequest, "%s: %v", q.Op, err)
	}
	m, ok := v.(wire.NamesSender)
	if !ok {
		return nil
	}
	for _, p := range m.Senders() {
		if p != from {
			return wire.Errorf(wire.Unauthorized, "%s in the name of %s: this connection is of %s, "+
				"and each process speaks for itself alone", q.Op, quotedIfNeeded(string(p.Node)), from)
		}
	}
	return nil
}
