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
func (cs *counts) stats() cachesidecar.ClusterState {
	return cachesidecar.ClusterState{
		Begun: cs.begun.Load(), Ended: cs.ended.Load(), Retired: cs.retired.Load(),
		Pauses: cs.pauses.Load(), StoppedMS: time.Duration(cs.stopped.Load()).Milliseconds(),
		Polls: cs.polls.Load(), PollFailures: cs.pollFailures.Load(),
		Refused: cs.refused.Load(), Conflicts: cs.conflicts.Load(),
		Invalidations: cachesidecar.InvalidationStats{
			Applied: cs.applied.Load(), Gaps: cs.gaps.Load(), Resets: cs.resets.Load(),
			Relayed: cs.relayed.Load(), Unrelayed: cs.unrelayed.Load(), Heard: cs.heard.Load(),
			LagUS: time.Duration(cs.lag.Load()).Microseconds(), Leases: []cachesidecar.LeaseStats{},
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
