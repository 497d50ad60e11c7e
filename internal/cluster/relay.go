package cluster

import (
	"context"
	"time"

	"github.com/cachesidecar/cachesidecar/gossip"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
)

const (
	relayEvery = 50 * time.Millisecond
	maxRelayed = 1024 // bytes of a datagram: see gossip
	relayRoom  = 200  // of these, for everything but events

	relayEvent  = 17 // bytes of an event
	relayDetail = 8  // of its detail, without the namespace's name
)

// relay sends and takes events in gossip, as far as there is room. They reach nodes whose
// own link is cut. They are applied in the order of arrival, and no lease depends on
// them. Events that do not fit are left out, because the logs are followed anyway.
type relay struct {
	cfg       *Config
	driver    *driver
	admission *admission
	counts    *counts
}

// run gossips the events of this process's log, until ctx ends: the latest ones in one
// datagram, every relayEvery.
func (rl *relay) run(ctx context.Context, g *gossip.Gossip) {
	place := rl.cfg.Events.Head()
	for ctx.Err() == nil {
		rl.cfg.Events.Wait(ctx, place)
		head := rl.cfg.Events.Head()
		most := uint64(maxRelayed-relayRoom) / relayEvent
		if head-place > most {
			rl.counts.unrelayed.Add(int64(head - place - most))
			place = head - most
		}
		if events, ok := rl.cfg.Events.After(place, int(most), nil); ok {
			rl.send(g, events)
		}
		place = head
		kv.Sleep(ctx, relayEvery)
	}
}

// send sends events in one datagram: those from the first on that fit.
func (rl *relay) send(g *gossip.Gossip, events []invalidation.Event) {
	w := wire.Relay{From: rl.cfg.Self}
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
		invalidation.PeerCodec.Append(&w.Events, &events[i])
	}
	rl.counts.unrelayed.Add(int64(len(events) - w.Events.Len()))
	if w.Events.Len() == 0 {
		return
	}
	if g.Broadcast(wire.MarshalBody(&w)) {
		rl.counts.relayed.Add(int64(w.Events.Len()))
	} else {
		rl.counts.unrelayed.Add(int64(w.Events.Len()))
	}
}

// receive takes a datagram.
func (rl *relay) receive(b []byte) {
	var w wire.Relay
	if err := wire.UnmarshalBody(b, &w); err != nil {
		rl.cfg.Log.Debug("a datagram cannot be read", "error", err)
		return
	}
	from := w.From
	trusted := false
	rl.driver.withMember(from, func(m *member) { trusted = !m.skewed && !rl.cfg.Network.NoRelay })
	events, err := fromEvents(&w.Events)
	if !trusted || err != nil || rl.admission.ahead(from, w.NewestVersion()) {
		return // from an earlier process, or from a clock that does not count
	}
	for i := range events {
		rl.cfg.Versions.Observe(events[i].Version)
	}
	rl.counts.heard.Add(int64(len(events)))
	rl.cfg.Delegate.Relayed(events)
}
