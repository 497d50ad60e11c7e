package cluster

import (
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/kv"
)

// counts of what has happened. All parts of a node share them.
type counts struct {
	pauses, begun, ended, retired  atomic.Int64 // partitions, except pauses
	stopped                        atomic.Int64 // ns without running, in stalls that count
	polls, pollFailures, conflicts atomic.Int64
	refused                        atomic.Int64
	applied, gaps, resets          atomic.Int64 // events of others' logs
	relayed, unrelayed, heard      atomic.Int64 // events, by gossip
	lag                            atomic.Int64 // how late the last event was, ns
}

// stats returns the counts so far; the other fields are zero.
func (c *counts) stats() cachesidecar.ClusterState {
	return cachesidecar.ClusterState{
		Begun: c.begun.Load(), Ended: c.ended.Load(), Retired: c.retired.Load(),
		Pauses: c.pauses.Load(), StoppedMS: time.Duration(c.stopped.Load()).Milliseconds(),
		Polls: c.polls.Load(), PollFailures: c.pollFailures.Load(),
		Refused: c.refused.Load(), Conflicts: c.conflicts.Load(),
		Invalidations: cachesidecar.InvalidationStats{
			Applied: c.applied.Load(), Gaps: c.gaps.Load(), Resets: c.resets.Load(),
			Relayed: c.relayed.Load(), Unrelayed: c.unrelayed.Load(), Heard: c.heard.Load(),
			LagUS: time.Duration(c.lag.Load()).Microseconds(), Leases: []cachesidecar.LeaseStats{},
		},
	}
}

// leaseStats describes a lease on another process since a time; zero: none.
func leaseStats(node kv.NodeID, now, since, bound time.Duration) cachesidecar.LeaseStats {
	if since == 0 {
		return cachesidecar.LeaseStats{Node: string(node), AgeMS: -1}
	}
	age := max(0, now-since)
	return cachesidecar.LeaseStats{
		Node: string(node), AgeMS: age.Milliseconds(), RemainingMS: max(0, bound-age).Milliseconds(),
	}
}
