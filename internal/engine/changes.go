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
	rounds   flushRounds
}

// Began implements handoff.Listener: it is called when ownerships of partitions begin.
func (ch *Changes) Began(b *ownership.Begun, now time.Duration) {
	ch.noteUnknown(b.Partitions)
	ch.barriers.begun(b, now)
}

// Ended implements handoff.Listener: it is called when ownerships of partitions have ended. The
// apps that wait for fills ask the next owner.
func (ch *Changes) Ended(set kv.PartitionSet, v kv.Version) {
	ch.RaiseFloor(set, v)
	ch.LeaseTokens.End(func(h kv.Hash) bool { return set.Has(h.Partition()) })
}

// Changed is called by the store for every change, in the store's critical section. The
// change is in the log before it is acknowledged, and outdates this host's own copies.
func (ch *Changes) Changed(k kv.Key, v kv.Version) {
	if ch.Log != nil {
		ch.Log.Append(invalidation.Event{Kind: invalidation.Changed, Hash: k.Hash, Version: v})
	}
	ch.Namespaces.KeyFilter(k.Namespace).Add(k.Hash)
	ch.Note(k.Hash, v)
}

// Written is called by the store for every write that gives a key a value, before Changed.
func (ch *Changes) Written(k kv.Key, now time.Duration) {
	if ch.Namespaces.ReplicaLag(k.Namespace) != 0 {
		ch.barriers.written(k.Hash, now)
	}
}

// Warm brings what Changed will need for some keys into the processor's cache. The result
// has no meaning, see invalidation.Ledger.Warm.
func (ch *Changes) Warm(hashes []kv.Hash) (sum uint64) {
	return ch.Ledger.Warm(hashes) + ch.SharedMemory.Warm(hashes)
}

// RaiseFloor outdates, here and at all followers, what was attested for some partitions before
// a version.
func (ch *Changes) RaiseFloor(set kv.PartitionSet, v kv.Version) {
	ch.raise(raised(set, v))
}

// RaiseCopies is RaiseFloor if no key has changed.
func (ch *Changes) RaiseCopies(set kv.PartitionSet, v kv.Version) {
	e := raised(set, v)
	e.Detail.CopiesOnly = true
	ch.raise(e)
}

func (ch *Changes) raise(e invalidation.Event) {
	if failpoint.Out(failpoint.Released) {
		return
	}
	if ch.Log != nil {
		ch.Log.Append(e)
	}
	ch.NoteFloor(e.Detail.Partitions, e.Version)
}

// noteUnknown notes that other hosts may have changed keys of some partitions.
func (ch *Changes) noteUnknown(set kv.PartitionSet) {
	for k := range ch.Namespaces.KeyFilters() {
		k.Missed(set)
	}
}

// detach makes later reads of a hash start a load, or a call of its owner, of their own.
// The change of the key has been stamped.
func (ch *Changes) detach(h kv.Hash) {
	if !failpoint.Out(failpoint.JoinRule) {
		ch.Calls.Invalidate(h)
	}
	if failpoint.Out(failpoint.Detach) {
		return
	}
	ch.LeaseTokens.Invalidate(h)
	for _, l := range ch.Namespaces.Loads() {
		l.Invalidate(h)
	}
}

// detachIf does the same for all keys that match.
func (ch *Changes) detachIf(match func(kv.NamespaceID, kv.Hash) bool) {
	if !failpoint.Out(failpoint.JoinRule) {
		ch.Calls.InvalidateIf(match)
	}
	if failpoint.Out(failpoint.Detach) {
		return
	}
	ch.LeaseTokens.InvalidateIf(match)
	for _, l := range ch.Namespaces.Loads() {
		l.InvalidateIf(match)
	}
}

// DetachSlot does the same for a namespace.
func (ch *Changes) DetachSlot(id kv.NamespaceID) {
	ch.detachIf(func(of kv.NamespaceID, _ kv.Hash) bool { return of == id })
}

// wrote notes the owner's answer to a write.
func (ch *Changes) wrote(key kv.Key, r *wire.Reply) {
	switch {
	case r.Status == wire.Moved, r.Status == wire.Unavailable, r.Status == wire.Busy, r.Status == wire.BadRequest,
		r.Status == wire.TooLarge, r.Status == wire.NotStored: // not executed
	case r.Status == wire.Timeout:
		ch.unknown(key)
	case failpoint.Out(failpoint.TouchEvent):
		ch.Outdated(key, kv.Version(r.Version))
	default:
		ch.Outdated(key, kv.Version(r.Changed()))
	}
}

// unknown notes a write that may have been executed.
func (ch *Changes) unknown(key kv.Key) {
	if !failpoint.Out(failpoint.Unknown) {
		ch.Outdated(key, 0)
	}
}

// Outdated notes that copies of a key from before version v must not be served any more;
// zero stands for now.
func (ch *Changes) Outdated(key kv.Key, v kv.Version) {
	if v == 0 {
		v = ch.HLC.Next(ch.Clock.Read().Wall)
	}
	ch.HLC.Observe(v)
	if failpoint.Out(failpoint.OwnWrites) {
		return
	}
	ch.Note(key.Hash, v)
	ch.L1.Outdate(key.Hash, v)
}

// Note notes that a key has changed: copies from before version v are outdated, here and
// at the apps that watch.
func (ch *Changes) Note(h kv.Hash, v kv.Version) {
	ch.Ledger.Note(h, v)
	ch.SharedMemory.Withdraw(h)
	ch.detach(h)
	ch.watches.Tell(invalidation.Event{Kind: invalidation.Changed, Hash: h, Version: v})
}

// NoteFloor notes the same for all keys of some partitions.
func (ch *Changes) NoteFloor(set kv.PartitionSet, v kv.Version) {
	for p := range set.All() {
		ch.Ledger.RaisePartition(p, v)
	}
	ch.SharedMemory.Floor(set)
	ch.detachIf(func(_ kv.NamespaceID, h kv.Hash) bool { return set.Has(h.Partition()) })
	ch.watches.Tell(raised(set, v))
}
