package engine

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// An origin may answer a load from a replica that lags. Just after a deletion the replica
// may return the very value that was deleted, under a version above the deletion's. A
// namespace therefore has a replica_lag, the longest lag to expect, and a deletion raises
// a load barrier on its key for that long. A load that begins before the barrier ends is
// answered, but not kept. Nothing else is refused.
//
// The owner of the key keeps the barrier; a write of the key there ends it. The other
// hosts note the barrier when they follow the owner's log, for the next owner of the
// partition. They are not told that a write has ended it, so the next owner may leave a
// load unkept without need. If an owner has crashed, no host knows all of its barriers:
// the whole partition then has a barrier, for the replica_lag of each namespace.

// Barriers are the load barriers that this host knows of.
type Barriers struct {
	*deps

	keys  *invalidation.Barriers
	since [kv.Partitions]atomic.Int64 // boot clock: when the barriers of the partition were lost; zero: never
}

// raisePartitions raises barriers on whole raisePartitions, from the moment now on.
func (b *Barriers) raisePartitions(set kv.PartitionSet, now time.Duration) {
	for p := range set.All() {
		b.since[p].Store(max(1, int64(now)))
	}
}

// everywhere raises barriers on all partitions, from the moment now on.
func (b *Barriers) everywhere(now time.Duration) {
	for p := range b.since {
		b.since[p].Store(max(1, int64(now)))
	}
}

// raise raises the barrier of a key that is about to be deleted, here and at all
// followers. It precedes the deletion, so that it comes in time everywhere.
func (b *Barriers) raise(h kv.Hash, lag time.Duration, now kv.Moment) {
	b.keys.Begin(h, now.Boot+lag)
	if b.Log != nil {
		b.Log.Append(invalidation.Event{
			Kind: invalidation.Barrier, Hash: h, Version: b.HLC.Next(now.Wall), Detail: &invalidation.Detail{Lag: lag},
		})
	}
}

// deleted notes that the deletion of a key whose barrier was raised is done.
func (b *Barriers) deleted(h kv.Hash, v kv.Version) { b.keys.Deleted(h, v) }

// end ends the barrier of a key, because the key has been given a value.
func (b *Barriers) end(ns *namespaces.Namespace, h kv.Hash, v kv.Version) {
	if ns.ReplicaLag > 0 {
		b.keys.Written(h, v)
	}
}

// apply notes a barrier of another host.
func (b *Barriers) apply(e *invalidation.Event) {
	now := b.Clock.Read().Boot
	if e.Detail.Partitions != nil {
		b.raisePartitions(e.Detail.Partitions, now)
		return
	}
	b.keys.Raise(e.Hash, now+min(e.Detail.Lag, invalidation.MaxReplicaLag))
}

// begun is called when ownerships of partitions begin. It raises barriers on the
// partitions that no process has released: their last owner has crashed, or was an
// earlier process of this host. Other hosts are told, since one of them may be the next
// owner.
func (b *Barriers) begun(begun *ownership.Begun, now time.Duration) {
	if !b.Namespaces.AnyReplicaLag() {
		return
	}
	taken := slices.Clone(begun.Partitions)
	for _, set := range begun.Releasers {
		for p := range set.All() {
			taken.Remove(p)
		}
	}
	if taken.Empty() {
		return
	}
	b.raisePartitions(taken, now)
	if b.Log != nil {
		b.Log.Append(invalidation.Event{
			Kind: invalidation.Barrier, Version: b.HLC.Next(b.Clock.Read().Wall),
			Detail: &invalidation.Detail{Partitions: taken},
		})
	}
}

// Barred reports whether a barrier keeps out the result of a load that began at the given
// moment of the boot clock.
func (b *Barriers) Barred(ns *namespaces.Namespace, key kv.Key, begun time.Duration) bool {
	if b.keys.Bars(key.Hash, begun) {
		return true
	}
	if ns.ReplicaLag == 0 {
		return false
	}
	p := key.Hash.Partition()
	if since := b.since[p].Load(); since != 0 && begun < time.Duration(since)+ns.ReplicaLag {
		return true
	}
	return begun < b.Handoff.BegunAt(p)+ns.ReplicaLag && !b.known(p)
}

// known reports whether this host has applied all that other hosts had in their logs when
// its ownership of a partition began. It then knows all of their barriers.
func (b *Barriers) known(p uint16) bool {
	if begun := b.Handoff.Starts[p].Load(); begun != nil {
		for _, l := range begun.Behind {
			if l.Owner.Applied() < l.Place {
				return false
			}
		}
	}
	return true
}
