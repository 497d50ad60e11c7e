package cluster

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/peer"
)

// counts of what has happened. All parts of a node share them.
type counts struct {
	pauses, begun, ended, retired  atomic.Int64 // partitions, except pauses
	stopped                        atomic.Int64 // ns without running, in gaps that count
	polls, pollFailures, conflicts atomic.Int64
	refused                        atomic.Int64
	applied, gaps, resets          atomic.Int64 // events of others' logs
	relayed, unrelayed, heard      atomic.Int64 // events, by gossip
	lag                            atomic.Int64 // how late the last event was, ns
}

// Stats counts what has happened. Begun, Ended and Retired count partitions.
type Stats struct {
	Members               int // live members, this node included
	In                    bool
	Owned                 int
	Begun, Ended, Retired int64
	Pauses                int64
	Stopped               time.Duration // not running, in gaps that count
	Polls, PollFailures   int64
	Refused, Conflicts    int64

	// Events of logs.
	Applied, Gaps, Resets     int64
	Relayed, Unrelayed, Heard int64
	Lag                       time.Duration
	Links                     peer.Stats // connections from other nodes
	Leases                    []Lease

	Gossip gossip.Stats
	Met    Met // of processes that only gossip had told of
}

// Lease has the age of the lease on another process; negative if there is none.
type Lease struct {
	Node kv.NodeID
	Age  time.Duration
}

// Met counts greetings of processes that were unknown.
type Met struct{ Greeted, Failed int64 }

// stats returns the counts so far; the other fields are zero.
func (c *counts) stats() Stats {
	return Stats{
		Begun: c.begun.Load(), Ended: c.ended.Load(), Retired: c.retired.Load(),
		Pauses: c.pauses.Load(), Stopped: time.Duration(c.stopped.Load()),
		Polls: c.polls.Load(), PollFailures: c.pollFailures.Load(),
		Refused: c.refused.Load(), Conflicts: c.conflicts.Load(),
		Applied: c.applied.Load(), Gaps: c.gaps.Load(), Resets: c.resets.Load(),
		Relayed: c.relayed.Load(), Unrelayed: c.unrelayed.Load(), Heard: c.heard.Load(),
		Lag: time.Duration(c.lag.Load()),
	}
}
