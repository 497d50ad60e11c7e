package cluster

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// Member is what this node knows about a node: another one, or itself.
type Member struct {
	ID      kv.Process
	Address string
	State   string // one of the states below
	Why     string
	Weight  uint32
	Owned   int // partitions that the ring assigns to it
	// MayOwn says that it owns something, or may come to. Operations on the whole
	// cluster wait for it. MayOwn is false for a process that has left or is considered
	// dead (gossip misses it, and nothing was heard of it on any path for the detection
	// time), and for a Stranger.
	MayOwn bool
	// Stranger says that it is refused and has never been in. It is no part of the
	// cluster.
	Stranger bool
}

// States of a member.
const (
	StateIn      = "in"      // it owns partitions
	StateOut     = "out"     // it lives, and owns none
	StateDrained = "drained" // it lives, and wants none: it was drained, or it leaves
	StateMissing = "missing" // gossip considers it dead
	StateLeft    = "left"    // it has said goodbye
	StateRefused = "refused" // it is not talked to; see Why
	StateUnknown = "unknown" // only gossip tells of it, and it counts for nothing
)

// States has all states of members.
var States = [...]string{StateIn, StateOut, StateDrained, StateMissing, StateLeft, StateRefused, StateUnknown}

// liveState returns the state of a member that lives. A weight of zero is told only by a
// member that is drained.
func liveState(in bool, weight uint32) string {
	switch {
	case weight == 0:
		return StateDrained
	case in:
		return StateIn
	}
	return StateOut
}
