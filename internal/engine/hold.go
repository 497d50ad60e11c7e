package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// What an origin answers may come from a replica that lags behind: just after a
// deletion that may be the very value that was deleted, under a version above the
// deletion's. So a namespace has a hold, the longest lag to reckon with, and a
// deletion holds its key for so long: loads that begin before it is over are
// answered and not kept. Nothing else is refused.
//
// The owner of the key keeps the hold, and a write of the key there ends it. All
// others note it when they follow the owner's log, for whoever comes to hold the
// partition after it; that a write has ended it they are not told, and may leave
// out a load for it. Where a holder has crashed nobody knows what it had held:
// the partition is held as a whole then, for as long as each namespace says.

// barriers are what is held.
type barriers struct {
	Keys  *invalidation.Barriers
	since [kv.Partitions]atomic.Int64 // boot clock: when what was held in it got lost; zero is never

	// What others may have held when this host's holding of a partition began.
	Before [kv.Partitions]atomic.Pointer[[]LogTo]
}

// LogTo is another host's log up to a place.
type LogTo struct {
	Owner *cluster.Owner
	Place uint64
}

// partitions holds whole partitions, from a moment on.
func (h *barriers) partitions(set kv.PartitionSet, now time.Duration) {
	for p := range set.All() {
		h.since[p].Store(max(1, int64(now)))
	}
}

// raiseBarrier holds a key that is about to be deleted, here and with all who
// follow. That it is before the deletion is what makes it come in time
// everywhere.
func (c *Engine) raiseBarrier(h kv.Hash, hold time.Duration, now kv.Moment) {
	c.Barriers.Keys.Begin(h, now.Boot+hold)
	if c.Log != nil {
		c.Log.Append(invalidation.Event{Kind: invalidation.Barrier, Hash: h, Version: c.HLC.Next(now.Wall), Detail: &invalidation.Detail{Lag: hold}})
	}
}

// endBarrier ends what a key is held for: it has been given a value.
func (c *Engine) endBarrier(ns *namespaces.Namespace, key []byte, v kv.Version) {
	if ns.ReplicaLag > 0 {
		c.Barriers.Keys.Written(ns.Key(key).Hash, v)
	}
}

// applyBarrier notes a hold of another host's.
func (c *Engine) applyBarrier(e *invalidation.Event) {
	now := c.Clock.Read().Boot
	if e.Detail.Partitions != nil {
		c.Barriers.partitions(e.Detail.Partitions, now)
		return
	}
	c.Barriers.Keys.Raise(e.Hash, now+min(e.Detail.Lag, invalidation.MaxReplicaLag))
}

// barTaken is told of partitions whose holding begins. It holds those that
// nobody has released: their last holder has crashed, or was an earlier process of
// this host. Others are told, since they may be the next to hold them.
func (c *Engine) barTaken(b *ownership.Begun, owner func(kv.Process) *cluster.Owner, now time.Duration) {
	if !c.Names.AnyReplicaLag {
		return
	}
	var before []LogTo
	for id, head := range b.Heads {
		if o := owner(id); o.Applied() < head {
			before = append(before, LogTo{o, head})
		}
	}
	for p := range b.Partitions.All() {
		c.Barriers.Before[p].Store(&before)
	}
	taken := slices.Clone(b.Partitions)
	for _, set := range b.Releasers {
		for p := range set.All() {
			taken.Remove(p)
		}
	}
	if taken.Empty() {
		return
	}
	c.Barriers.partitions(taken, now)
	if c.Log != nil {
		c.Log.Append(invalidation.Event{Kind: invalidation.Barrier, Version: c.HLC.Next(c.Clock.Read().Wall), Detail: &invalidation.Detail{Partitions: taken}})
	}
}

// Barred says whether what a load of a key brings, which began at a moment of the
// boot clock, is not to be kept.
func (c *Engine) Barred(ns *namespaces.Namespace, key kv.Key, begun time.Duration) bool {
	if c.Barriers.Keys.Bars(key.Hash, begun) {
		return true
	}
	if ns.ReplicaLag == 0 {
		return false
	}
	p := key.Hash.Partition()
	if since := c.Barriers.since[p].Load(); since != 0 && begun < time.Duration(since)+ns.ReplicaLag {
		return true
	}
	return begun < time.Duration(c.Handoff.BegunAt[p].Load())+ns.ReplicaLag && !c.Barriers.known(p)
}

// known says whether this host has applied all that others had in their logs when
// its holding of a partition began: then it knows what they have held.
func (h *barriers) known(p uint16) bool {
	if before := h.Before[p].Load(); before != nil {
		for _, l := range *before {
			if l.Owner.Applied() < l.Place {
				return false
			}
		}
	}
	return true
}
