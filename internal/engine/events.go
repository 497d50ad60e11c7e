package engine

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Tiers is what the cluster's node tells of holdings and of others' logs.
type Tiers struct {
	*handoff.Handoff
	c       *Engine
	session func(kv.Process) rpc.Handler
}

// Tiers returns what the cluster's node calls; session makes what serves a peer.
func (c *Engine) Tiers(session func(kv.Process) rpc.Handler) Tiers {
	return Tiers{c.Handoff, c, session}
}

// Calls makes what serves another process's requests.
func (t Tiers) Calls(from kv.Process) rpc.Handler { return t.session(from) }

// Began is told of partitions whose holding begins.
func (c *Engine) Began(b *ownership.Begun, owner func(kv.Process) *cluster.Owner, now time.Duration) {
	c.missed(b.Partitions)
	c.barTaken(b, owner, now)
}

// Changed is told by the store of every change, in its critical section: it is
// in the log before it is acknowledged, and outdates this host's own copies.
func (c *Engine) Changed(k kv.Key, v kv.Version) {
	if c.Log != nil {
		c.Log.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
	}
	c.Names.KeyFilters[k.Namespace].Add(k.Hash)
	c.Note(k.Hash, v)
}

// Raise outdates, here and with all who follow, what was vouched for of some
// partitions before a version.
func (c *Engine) Raise(set kv.PartitionSet, v kv.Version) {
	if failpoint.Out(failpoint.Released) {
		return
	}
	c.Log.Append(invalidation.Event{Kind: invalidation.Raised, Version: v, Detail: &invalidation.Detail{Partitions: set}})
	c.Floor(set, v)
}

// Apply takes what has changed at another process.
func (t Tiers) Apply(from kv.Process, after uint64, events []invalidation.Event) {
	for i := range events {
		t.apply(from, after+1+uint64(i), &events[i])
	}
}

// Relayed is Apply: the ledger takes events in any order.
func (t Tiers) Relayed(from kv.Process, after uint64, events []invalidation.Event) {
	t.Apply(from, after, events)
}

func (t Tiers) apply(from kv.Process, place uint64, e *invalidation.Event) {
	c := t.c
	switch e.Kind {
	case invalidation.Changed:
		if !failpoint.Out(failpoint.NoteEvents) {
			c.Note(e.Hash, e.Version)
		}
		c.L1.Outdate(e.Hash, e.Version)
		// What somebody else has written though this host holds the partition
		// comes of a split: what is here is not newer in any order that both
		// sides know.
		if p := e.Hash.Partition(); t.strange(from, p, place) {
			c.Store.Invalidate(e.Hash, c.Clock.Read())
			for _, k := range c.Names.KeyFilters {
				k.Add(e.Hash)
			}
			c.Counts.Strays.Add(1)
		}
	case invalidation.Raised:
		c.Floor(e.Detail.Partitions, e.Version)
		c.missed(e.Detail.Partitions)
	case invalidation.Flushed:
		if !failpoint.Out(failpoint.FloorsInLog) {
			c.Flushed(e.Detail.Namespace, e.Version)
		}
	case invalidation.Barrier:
		c.applyBarrier(e)
	}
}

// strange says whether what another process has at a place in its log, of a
// partition that this host holds, is later than that process's answer to the
// ACQUIRE that this holding began with. Under policy consistent nobody writes on
// two sides, and whoever has not answered has stopped before this holding began.
func (t Tiers) strange(from kv.Process, p uint16, place uint64) bool {
	if t.c.Node.OwnershipEpoch(p) == 0 || t.c.Config.Policy == cluster.Consistent || failpoint.Out(failpoint.Strange) {
		return false
	}
	heads := t.Heads[p].Load()
	return heads != nil && place > (*heads)[from]
}

// Reset stands for events that are lost.
func (t Tiers) Reset(from kv.Process, marks []invalidation.Mark, floors []wire.Floor, floor kv.Version) {
	c := t.c
	strays, lost := kv.NewPartitionSet(kv.Partitions), kv.NewPartitionSet(kv.Partitions)
	for _, m := range marks {
		lost.Add(m.Partition)
		if t.strange(from, m.Partition, m.Changed) {
			strays.Add(m.Partition)
		}
	}
	if !failpoint.Out(failpoint.ResetFloors) {
		c.Floor(lost, floor)
	}
	c.Barriers.partitions(lost, c.Clock.Read().Boot)
	c.missed(lost)
	if !failpoint.Out(failpoint.FloorsInReset) {
		t.Learn(floors)
	}
	if strays.Empty() {
		return
	}
	for p := range strays.All() {
		t.Incoming[p].Store(nil)
		c.Store.NewOwnership(p)
	}
	c.Counts.Strays.Add(int64(strays.Len()))
	c.Raise(strays, c.HLC.Next(c.Clock.Read().Wall))
}
