package namespaces

import (
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Outcome is how a request ended, for the counters.
type Outcome uint8

const (
	HitL1 Outcome = iota
	HitL2
	HitPeer // the owner had it
	Loaded  // the origin had it
	Done
	Miss
	Stale
	Refused // a condition was not met
	Failed
	Outcomes
)

// KeysIn returns how many keys a request reads or writes.
func KeysIn(q *wire.Request) int {
	switch q.Op {
	case wire.OpMGet, wire.OpDelete:
		return len(q.Keys)
	case wire.OpGet, wire.OpSet, wire.OpTouch, wire.OpIncr, wire.OpLease, wire.OpFill, wire.OpMetaGet:
		return 1
	}
	return 0
}

// HitOf returns the outcome of a read that returned a value from the given source.
func HitOf(s wire.Source) Outcome {
	switch s {
	case wire.SourceL1:
		return HitL1
	case wire.SourcePeer:
		return HitPeer
	case wire.SourceOrigin:
		return Loaded
	}
	return HitL2
}

// OutcomeOf returns the outcome of a request that was answered with r.
func OutcomeOf(r *wire.Reply) Outcome {
	switch r.Status {
	case wire.OK:
		return Done
	case wire.Miss, wire.Lease:
		return Miss
	case wire.Stale:
		return Stale
	case wire.Exists, wire.NotStored:
		return Refused
	}
	return Failed
}
