package cluster

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Conversions between the machine's types and those of the wire.

func toOwnerships(list []ownership.Ownership) []wire.Promise {
	out := make([]wire.Promise, len(list))
	for i, h := range list {
		out[i] = wire.Promise{Ballot: *h.Ballot, Partitions: h.Partitions.Packed()}
	}
	return out
}

// fromOwnerships takes at most as many ownerships as there are partitions.
func fromOwnerships(list []wire.Promise) []ownership.Ownership {
	list = list[:min(len(list), kv.Partitions)]
	out := make([]ownership.Ownership, len(list))
	for i, p := range list {
		ballot := p.Ballot // a copy, as in acquire
		out[i] = ownership.Ownership{Ballot: &ballot, Partitions: kv.UnpackedSet(p.Partitions)}
	}
	return out
}

func toEvents(list []invalidation.Event) (w wire.Events) {
	w.Grow(len(list))
	for i := range list {
		invalidation.PeerCodec.Append(&w, &list[i])
	}
	return w
}

func fromEvents(w *wire.Events) ([]invalidation.Event, error) {
	list := make([]invalidation.Event, 0, w.Len())
	err := invalidation.PeerCodec.Each(w, func(e invalidation.Event) { list = append(list, e) })
	return list, err
}
