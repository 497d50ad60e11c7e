package sidecar

import (
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// keysIn is how many keys a request reads or writes.
func keysIn(q *wire.Request) int {
	switch q.Op {
	case wire.OpMGet, wire.OpDelete:
		return len(q.Keys)
	case wire.OpGet, wire.OpSet, wire.OpTouch, wire.OpIncr, wire.OpLease, wire.OpFill:
		return 1
	}
	return 0
}

// hitOf is the outcome of a value from somewhere.
func hitOf(s wire.Source) outcome {
	switch s {
	case wire.SourceL1:
		return hitL1
	case wire.SourcePeer:
		return hitPeer
	case wire.SourceOrigin:
		return hitOrigin
	}
	return hitL2
}

func outcomeOf(r *wire.Reply) outcome {
	switch r.Status {
	case wire.OK:
		return done
	case wire.Miss, wire.Lease:
		return miss
	case wire.Stale:
		return stale
	case wire.Exists, wire.NotStored:
		return refused
	}
	return failed
}
