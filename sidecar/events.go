package sidecar

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/holding"
)

// tiers is what the cluster's node tells of holdings and of others' logs.
type tiers struct {
	*handoff.Handoff
	c       *core
	session func(kv.Process) rpc.Handler
}

// Calls makes what serves another process's requests.
func (t tiers) Calls(from kv.Process) rpc.Handler { return t.session(from) }

// Began is told of partitions whose holding begins.
func (c *core) Began(b *holding.Begun, owner func(kv.Process) *cluster.Owner, now time.Duration) {
	c.missed(b.Partitions)
	c.holdTaken(b, owner, now)
}

// changed is told by the store of every change, in its critical section: it is
// in the log before it is acknowledged, and outdates this host's own copies.
func (c *core) changed(k kv.Key, v kv.Version) {
	if c.log != nil {
		c.log.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
	}
	c.names.KeyFilters[k.Namespace].Add(k.Hash)
	c.note(k.Hash, v)
}

// Raise outdates, here and with all who follow, what was vouched for of some
// partitions before a version.
func (c *core) Raise(set kv.PartitionSet, v kv.Version) {
	if strike.Out(strike.Released) {
		return
	}
	c.log.Append(invalidation.Event{Kind: invalidation.Raised, Version: v, Detail: &invalidation.Detail{Partitions: set}})
	c.floor(set, v)
}

// Apply takes what has changed at another process.
func (t tiers) Apply(from kv.Process, after uint64, events []invalidation.Event) {
	for i := range events {
		t.apply(from, after+1+uint64(i), &events[i])
	}
}

// Relayed is Apply: the ledger takes events in any order.
func (t tiers) Relayed(from kv.Process, after uint64, events []invalidation.Event) {
	t.Apply(from, after, events)
}

func (t tiers) apply(from kv.Process, place uint64, e *invalidation.Event) {
	c := t.c
	switch e.Kind {
	case invalidation.Changed:
		if !strike.Out(strike.NoteEvents) {
			c.note(e.Hash, e.Version)
		}
		c.l1.Outdate(e.Hash, e.Version)
		// What somebody else has written though this host holds the partition
		// comes of a split: what is here is not newer in any order that both
		// sides know.
		if p := e.Hash.Partition(); t.strange(from, p, place) {
			c.store.Invalidate(e.Hash, c.clock.Read())
			for _, k := range c.names.KeyFilters {
				k.Add(e.Hash)
			}
			c.counts.strays.Add(1)
		}
	case invalidation.Raised:
		c.floor(e.Detail.Partitions, e.Version)
		c.missed(e.Detail.Partitions)
	case invalidation.Flushed:
		if !strike.Out(strike.FloorsInLog) {
			c.flushed(e.Detail.Namespace, e.Version)
		}
	case invalidation.Held:
		c.holdThere(e)
	}
}

// strange says whether what another process has at a place in its log, of a
// partition that this host holds, is later than that process's answer to the
// ACQUIRE that this holding began with. Under policy consistent nobody writes on
// two sides, and whoever has not answered has stopped before this holding began.
func (t tiers) strange(from kv.Process, p uint16, place uint64) bool {
	if t.c.node.Holds(p) == 0 || t.c.cfg.Policy == cluster.Consistent || strike.Out(strike.Strange) {
		return false
	}
	heads := t.Heads[p].Load()
	return heads != nil && place > (*heads)[from]
}

// Reset stands for events that are lost.
func (t tiers) Reset(from kv.Process, marks []invalidation.Mark, floors []wire.Floor, floor kv.Version) {
	c := t.c
	strays, lost := kv.NewPartitionSet(kv.Partitions), kv.NewPartitionSet(kv.Partitions)
	for _, m := range marks {
		lost.Add(m.Partition)
		if t.strange(from, m.Partition, m.Changed) {
			strays.Add(m.Partition)
		}
	}
	if !strike.Out(strike.ResetFloors) {
		c.floor(lost, floor)
	}
	c.holds.partitions(lost, c.clock.Read().Boot)
	c.missed(lost)
	if !strike.Out(strike.FloorsInReset) {
		t.Learn(floors)
	}
	if strays.Empty() {
		return
	}
	for p := range strays.All() {
		t.Incoming[p].Store(nil)
		c.store.Holding(p)
	}
	c.counts.strays.Add(int64(strays.Len()))
	c.Raise(strays, c.hlc.Next(c.clock.Read().Wall))
}
