package engine

import (
	"sync"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Changes notes the changes of keys wherever they must be known: in this host's log, in
// its ledger, at the apps that watch, and at the reads and loads under way.
type Changes struct {
	*deps
	watches  *Watches
	barriers *Barriers

	flushing sync.Mutex // locked while a flush of the cluster is noted
}

// Began implements handoff.Listener: it is called when ownerships of partitions begin.
func (c *Changes) Began(b *ownership.Begun, now time.Duration) {
	c.noteUnknown(b.Partitions)
	c.barriers.begun(b, now)
}

// Ended implements handoff.Listener: it is called when ownerships of partitions have ended. The
// apps that wait for fills ask the next owner.
func (c *Changes) Ended(set kv.PartitionSet, v kv.Version) {
	c.RaiseFloor(set, v)
	c.LeaseTokens.End(func(h kv.Hash) bool { return set.Has(h.Partition()) })
}

// Changed is called by the store for every change, in the store's critical section. The
// change is in the log before it is acknowledged, and outdates this host's own copies.
func (c *Changes) Changed(k kv.Key, v kv.Version) {
	if c.Log != nil {
		c.Log.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
	}
	c.Namespaces.KeyFilter(k.Namespace).Add(k.Hash)
	c.Note(k.Hash, v)
}

// Written is called by the store for every write that gives a key a value, before Changed.
func (c *Changes) Written(k kv.Key, now time.Duration) {
	if c.Namespaces.ReplicaLag(k.Namespace) != 0 {
		c.barriers.written(k.Hash, now)
	}
}

// Warm brings what Changed will need for some keys into the processor's cache. The result
// has no meaning, see invalidation.Ledger.Warm.
func (c *Changes) Warm(hashes []kv.Hash) (sum uint64) {
	return c.Ledger.Warm(hashes) + c.SharedMemory.Warm(hashes)
}

// RaiseFloor outdates, here and at all followers, what was attested for some partitions before
// a version.
func (c *Changes) RaiseFloor(set kv.PartitionSet, v kv.Version) {
	c.raise(raised(set, v))
}

// RaiseCopies is RaiseFloor if no key has changed.
func (c *Changes) RaiseCopies(set kv.PartitionSet, v kv.Version) {
	e := raised(set, v)
	e.Detail.CopiesOnly = true
	c.raise(e)
}

func (c *Changes) raise(e invalidation.Event) {
	if failpoint.Out(failpoint.Released) {
		return
	}
	if c.Log != nil {
		c.Log.Append(e)
	}
	c.NoteFloor(e.Detail.Partitions, e.Version)
}

// noteUnknown notes that other hosts may have changed keys of some partitions.
func (c *Changes) noteUnknown(set kv.PartitionSet) {
	for k := range c.Namespaces.KeyFilters() {
		k.Missed(set)
	}
}

// detach makes later reads of a hash start a load, or a call of its owner, of their own.
// The change of the key has been stamped.
func (c *Changes) detach(h kv.Hash) {
	if !failpoint.Out(failpoint.JoinRule) {
		c.Calls.Invalidate(h)
	}
	if failpoint.Out(failpoint.Detach) {
		return
	}
	c.LeaseTokens.Invalidate(h)
	for _, l := range c.Namespaces.Loads() {
		l.Invalidate(h)
	}
}

// detachIf does the same for all keys that match.
func (c *Changes) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	if !failpoint.Out(failpoint.JoinRule) {
		c.Calls.InvalidateIf(match)
	}
	if failpoint.Out(failpoint.Detach) {
		return
	}
	c.LeaseTokens.InvalidateIf(match)
	for _, l := range c.Namespaces.Loads() {
		l.InvalidateIf(match)
	}
}

// DetachSlot does the same for a namespace.
func (c *Changes) DetachSlot(id kv.NamespaceID) {
	c.detachIf(func(of kv.NamespaceID, _ kv.Hash) bool { return of == id })
}

// wrote notes the owner's answer to a write.
func (c *Changes) wrote(key kv.Key, r *wire.Reply) {
	switch {
	case r.Status == wire.Moved, r.Status == wire.Unavailable, r.Status == wire.Busy, r.Status == wire.BadRequest,
		r.Status == wire.TooLarge, r.Status == wire.NotStored: // not executed
	case r.Status == wire.Timeout:
		c.unknown(key)
	case failpoint.Out(failpoint.TouchEvent):
		c.Outdated(key, kv.Version(r.Version))
	default:
		c.Outdated(key, kv.Version(r.Changed()))
	}
}

// unknown notes a write that may have been executed.
func (c *Changes) unknown(key kv.Key) {
	if !failpoint.Out(failpoint.Unknown) {
		c.Outdated(key, 0)
	}
}

// Outdated notes that copies of a key from before version v must not be served any more;
// zero stands for now.
func (c *Changes) Outdated(key kv.Key, v kv.Version) {
	if v == 0 {
		v = c.HLC.Next(c.Clock.Read().Wall)
	}
	c.HLC.Observe(v)
	if failpoint.Out(failpoint.OwnWrites) {
		return
	}
	c.Note(key.Hash, v)
	c.L1.Outdate(key.Hash, v)
}

// Note notes that a key has changed: copies from before version v are outdated, here and
// at the apps that watch.
func (c *Changes) Note(h kv.Hash, v kv.Version) {
	c.Ledger.Note(h, v)
	c.SharedMemory.Withdraw(h)
	c.detach(h)
	c.watches.Tell(invalidation.Event{Kind: invalidation.Changed, Hash: h, Version: v})
}

// NoteFloor notes the same for all keys of some partitions.
func (c *Changes) NoteFloor(set kv.PartitionSet, v kv.Version) {
	for p := range set.All() {
		c.Ledger.RaisePartition(p, v)
	}
	c.SharedMemory.Floor(set)
	c.detachIf(func(_ kv.NamespaceID, h kv.Hash) bool { return set.Has(h.Partition()) })
	c.watches.Tell(raised(set, v))
}
