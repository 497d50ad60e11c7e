package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// A flush of one host drops the entries of that host. A flush of the cluster is a floor,
// which is noted by every host that could serve an older value. Package cluster decides
// when all of them have noted it.

// flushLocal empties a namespace, or all of them, on this host.
func (c *Changes) flushLocal(q *wire.Request, pins *namespaces.Pins, now kv.Moment) wire.Reply {
	name, bad := flushedName(q)
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	pins.Release()
	if c.Log != nil { // a partition that goes in this moment goes without what is kept of it
		c.RaiseFloor(c.Node.Owned(), c.HLC.Next(now.Wall))
	}
	c.barriers.emptied(c.Namespaces.WithSlot(name), now.Boot)
	c.empty(c.Namespaces.WithSlot(name), func(id kv.NamespaceID) { c.Store.Clear(id, now) })
	floor := c.HLC.Next(now.Wall)
	if c.Log == nil {
		c.watches.Tell(flushed(name, floor))
	} else { // outdates other hosts' copies of what was here a moment ago
		c.RaiseFloor(c.Node.Owned(), floor)
	}
	return wire.Reply{Version: uint64(floor)}
}

// flushed returns the event of a flush.
func flushed(name string, floor kv.Version) invalidation.Event {
	return invalidation.Event{Kind: invalidation.Flushed, Version: floor, Detail: &invalidation.Detail{Namespace: name}}
}

// flushedName returns the namespace that a request flushes; "" is all.
func flushedName(q *wire.Request) (string, *wire.Error) {
	if q.Has(wire.All) {
		return "", nil
	}
	if !kv.ValidNamespace(string(q.Namespace)) {
		return "", namespaces.BadName(q.Namespace)
	}
	return string(q.Namespace), nil
}

// FlushCluster empties a namespace, or all of them, on every host.
func (c *Changes) FlushCluster(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	name, bad := flushedName(q)
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	if bad := c.Namespaces.ReserveFlush(name, pins.Client); bad != nil {
		return wire.ErrorReply(bad)
	}
	defer c.Namespaces.ReleaseFlush(name)
	pins.Release()
	ctx, cancel := context.WithTimeout(ctx, deadline-c.Clock.Read().Boot)
	defer cancel()
	floor, bad := c.Node.Flush(ctx, name)
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	return wire.Reply{Version: uint64(floor)}
}

// empty drops this host's entries of some namespaces, and detaches their loads under way.
func (c *Changes) empty(names []string, drop func(kv.NamespaceID)) {
	b := namespaces.Pins{Table: c.Namespaces}
	defer b.Release()
	for _, name := range names {
		if ns := b.Read([]byte(name)); ns != nil {
			drop(ns.ID)
			c.SharedMemory.Flushed(ns.ID)
			ns.KeyFilter.Forget()
			c.DetachSlot(ns.ID)
		}
	}
}

// NoteFlush notes that everything from before a version is gone on all hosts, in a
// namespace or, with "", in all of them. No handoff brings it back. When NoteFlush returns,
// the flush is in this host's log, so that leases on this host cover it.
//
// A host that owns partitions drops newer entries too: such an entry may have been made
// from an older one, as by an INCR, here or on the host that handed it over. A host that
// owns nothing has only entries that were handed over with the flush, and drops only the
// older ones.
func (c *Changes) NoteFlush(name string, floor kv.Version) {
	c.noteFlush(name, floor, c.Clock.Read().Boot)
}

// noteFlush is NoteFlush of a flush that a host had noted at a time of the boot clock.
func (c *Changes) noteFlush(name string, floor kv.Version, at time.Duration) {
	if name != "" && !kv.ValidNamespace(name) {
		return // a name from another sidecar is not trusted
	}
	c.flushing.Lock() // a second report of the flush waits until the first is done
	defer c.flushing.Unlock()
	c.HLC.Observe(floor)
	list, isNew := c.Namespaces.Flush(name, floor, at)
	if !isNew {
		return
	}
	c.barriers.emptied(list, at)
	drop := func(id kv.NamespaceID) { c.Store.Clear(id, c.Clock.Read()) }
	if c.Node.Owned().Empty() {
		drop = func(id kv.NamespaceID) { c.Store.Flush(id, floor) }
	}
	c.empty(list, drop)
	e := flushed(name, floor)
	if c.Log != nil {
		c.Log.Append(e)
	}
	c.watches.Tell(e)
}
