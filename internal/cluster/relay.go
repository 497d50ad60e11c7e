package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

// Events also travel in gossip, as far as there is room, and reach nodes whose own link
// is cut. They are applied in the order of arrival, and no lease depends on them.
// Events that do not fit are left out, because the logs are followed anyway.

const (
	relayEvery = 50 * time.Millisecond
	maxRelayed = 1024 // bytes of a datagram: see gossip
	relayRoom  = 200  // of these, for everything but events

	relayEvent  = 17 // bytes of an event
	relayDetail = 8  // of its detail, without the namespace's name
)

// relay gossips the events of this process's log, until ctx ends: the latest ones in
// one datagram, every relayEvery.
func (n *Node) relay(ctx context.Context) {
	place := n.cfg.Events.Head()
	for ctx.Err() == nil {
		n.cfg.Events.Wait(ctx, place)
		head := n.cfg.Events.Head()
		most := uint64(maxRelayed-relayRoom) / relayEvent
		if head-place > most {
			n.counts.unrelayed.Add(int64(head - place - most))
			place = head - most
		}
		if events, ok := n.cfg.Events.After(place, int(most), nil); ok {
			n.tell(place, events)
		}
		place = head
		kv.Sleep(ctx, relayEvery)
	}
}

// tell sends events in one datagram: those from the first on that fit.
func (n *Node) tell(after uint64, events []invalidation.Event) {
	w := wire.Relay{From: toProcess(n.cfg.Self), After: after}
	details := 0
	for i := range events {
		if d := events[i].Detail; d != nil {
			details += relayDetail + len(d.Namespace)
			if d.Partitions != nil { // too long
				break
			}
		}
		if (i+1)*relayEvent+details > maxRelayed-relayRoom {
			break
		}
		eventCodec.Append(&w.Events, &events[i])
	}
	n.counts.unrelayed.Add(int64(len(events) - w.Events.Len()))
	if w.Events.Len() == 0 {
		return
	}
	if b, err := wire.MarshalBody(&w); err == nil && n.gossip.Broadcast(b) {
		n.counts.relayed.Add(int64(w.Events.Len()))
	} else {
		n.counts.unrelayed.Add(int64(w.Events.Len()))
	}
}

// relayed takes a datagram.
func (n *Node) relayed(b []byte) {
	var w wire.Relay
	if err := wire.UnmarshalBody(b, &w); err != nil {
		n.cfg.Log.Debug("a datagram cannot be read", "error", err)
		return
	}
	from := fromProcess(w.From)
	n.mu.Lock()
	m := n.members[from.Node]
	known := m != nil && m.id == from && !m.skewed && !n.cfg.Network.NoRelay
	n.mu.Unlock()
	events, err := fromEvents(&w.Events)
	if !known || err != nil || n.ahead(from, w.Newest()) {
		return // from an earlier process, or from a clock that does not count
	}
	for i := range events {
		n.cfg.Versions.Observe(events[i].Version)
	}
	n.counts.heard.Add(int64(len(events)))
	n.cfg.Tiers.Relayed(from, w.After, events)
}
