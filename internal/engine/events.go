package engine

import (
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/handoff"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/rpc"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Tiers implements cluster.Tiers: the node calls it about ownerships and about the logs
// of other hosts.
type Tiers struct {
	*handoff.Handoff
	c       *Engine
	session func(kv.Process) rpc.Handler
}

// Tiers returns the engine as the cluster's node calls it. session makes the handler of a
// peer's requests.
func (c *Engine) Tiers(session func(kv.Process) rpc.Handler) Tiers {
	return Tiers{c.Handoff, c, session}
}

// Calls returns the handler of another process's requests.
func (t Tiers) Calls(from kv.Process) rpc.Handler { return t.session(from) }

// Began implements handoff.Host: it is called when ownerships of partitions begin.
func (c *Engine) Began(b *ownership.Begun, owner func(kv.Process) *cluster.Owner, now time.Duration) {
	c.missed(b.Partitions)
	c.barTaken(b, owner, now)
}

// Changed is called by the store for every change, in the store's critical section. The
// change is in the log before it is acknowledged, and outdates this host's own copies.
func (c *Engine) Changed(k kv.Key, v kv.Version) {
	if c.Log != nil {
		c.Log.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
	}
	c.Names.KeyFilters[k.Namespace].Add(k.Hash)
	c.Note(k.Hash, v)
}

// Raise outdates, here and at all followers, what was attested for some partitions before
// a version.
func (c *Engine) Raise(set kv.PartitionSet, v kv.Version) {
	if failpoint.Out(failpoint.Released) {
		return
	}
	c.Log.Append(invalidation.Event{Kind: invalidation.Raised, Version: v, Detail: &invalidation.Detail{Partitions: set}})
	c.Floor(set, v)
}

// Apply applies events of another process's log, in their order.
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
		// Another process has written a key that this host owns: the cluster was split.
		// The entry here is not newer in any order that both sides know.
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

// strange reports whether an event comes from a split. That is so if this host owns the
// partition, and the event's place in the other process's log is after that process's
// answer to the ACQUIRE with which this ownership began. Under policy consistent two
// sides never both write. A process that has not answered had stopped before this
// ownership began.
func (t Tiers) strange(from kv.Process, p uint16, place uint64) bool {
	if t.c.Node.OwnershipEpoch(p) == 0 || t.c.Config.Policy == cluster.Consistent || failpoint.Out(failpoint.Strange) {
		return false
	}
	heads := t.Heads[p].Load()
	return heads != nil && place > (*heads)[from]
}

// Reset stands in for events of another process's log that are lost.
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
