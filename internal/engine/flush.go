package engine

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/inspect"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// A flush of one host drops the entries of that host. A flush of the cluster is a floor,
// which is noted by every host that could serve an older value. Package cluster decides
// when all of them have noted it.

// flushLocal empties a namespace, or all of them, on this host.
func (ch *Changes) flushLocal(q *wire.Request, pins *namespaces.Pins, now kv.Moment) wire.Reply {
	name, bad := flushedName(q)
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	pins.Release()
	if ch.Log != nil { // a partition that goes in this moment goes without what is kept of it
		ch.RaiseFloor(ch.Node.Owned(), ch.HLC.Next(now.Wall))
	}
	ch.barriers.emptied(ch.Namespaces.WithSlot(name), now.Boot)
	ch.empty(ch.Namespaces.WithSlot(name), func(id kv.NamespaceID) { ch.Store.Clear(id, now) })
	floor := ch.HLC.Next(now.Wall)
	if ch.Log == nil {
		ch.watches.Tell(flushed(name, floor))
	} else { // outdates other hosts' copies of what was here a moment ago
		ch.RaiseFloor(ch.Node.Owned(), floor)
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
func (ch *Changes) FlushCluster(
	ctx context.Context, q *wire.Request, pins *namespaces.Pins, deadline time.Duration,
) wire.Reply {
	name, bad := flushedName(q)
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	if bad := ch.Namespaces.ReserveFlush(name, pins.By); bad != nil {
		return wire.ErrorReply(bad)
	}
	defer ch.Namespaces.ReleaseFlush(name)
	pins.Release()
	ctx, cancel := context.WithTimeout(ctx, deadline-ch.Clock.Read().Boot)
	defer cancel()
	floor, bad := ch.rounds.do(ctx, name, func(ctx context.Context) (kv.Version, *wire.Error) {
		defer inspect.BeginWait(ctx, inspect.Acks, "")()
		return ch.Node.Flush(ctx, name)
	})
	if bad != nil {
		return wire.ErrorReply(bad)
	}
	return wire.Reply{Version: uint64(floor)}
}

// empty drops this host's entries of some namespaces, and detaches their loads under way.
func (ch *Changes) empty(names []string, drop func(kv.NamespaceID)) {
	b := namespaces.Pins{Table: ch.Namespaces}
	defer b.Release()
	for _, name := range names {
		if ns := b.Read([]byte(name)); ns != nil {
			drop(ns.ID)
			ch.SharedMemory.Flushed(ns.ID)
			ns.KeyFilter.Forget()
			ch.DetachSlot(ns.ID)
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
func (ch *Changes) NoteFlush(name string, floor kv.Version) {
	ch.noteFlush(name, floor, ch.Clock.Read().Boot)
}

// noteFlush is NoteFlush of a flush that a host had noted at a time of the boot clock.
func (ch *Changes) noteFlush(name string, floor kv.Version, at time.Duration) {
	if name != "" && !kv.ValidNamespace(name) {
		return // a name from another sidecar is not trusted
	}
	ch.flushing.Lock() // a second report of the flush waits until the first is done
	defer ch.flushing.Unlock()
	ch.HLC.Observe(floor)
	list, isNew := ch.Namespaces.Flush(name, floor, at)
	if !isNew {
		return
	}
	ch.barriers.emptied(list, at)
	drop := func(id kv.NamespaceID) { ch.Store.Clear(id, ch.Clock.Read()) }
	if ch.Node.Owned().Empty() {
		drop = func(id kv.NamespaceID) { ch.Store.Flush(id, floor) }
	}
	ch.empty(list, drop)
	e := flushed(name, floor)
	if ch.Log != nil {
		ch.Log.Append(e)
	}
	ch.watches.Tell(e)
}
