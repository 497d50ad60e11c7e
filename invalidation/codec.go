package invalidation

import (
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
)

// Codec writes events into messages and reads them again. Messages to apps and messages
// between sidecars differ only in how they write a set of partitions.
type Codec struct {
	EncodeSet func(kv.PartitionSet) []byte // also of nil, if an event has no partitions
	DecodeSet func([]byte) kv.PartitionSet
}

// WatchCodec is the codec of WATCH, and PeerCodec that of events between sidecars.
var (
	WatchCodec = Codec{kv.PartitionSet.Bytes, kv.PartitionsOf}
	PeerCodec  = Codec{kv.PartitionSet.Packed, kv.UnpackedSet}
)

// kinds are the kinds on the wire.
var kinds = [...]uint8{
	Changed: wire.EventChanged, FloorRaised: wire.EventRaised, Flushed: wire.EventFlushed,
}

// Append appends an event to those of a message.
func (c Codec) Append(w *wire.Events, e *Event) {
	var d *wire.EventDetail
	if e.Detail != nil {
		d = &wire.EventDetail{Partitions: c.EncodeSet(e.Detail.Partitions), Namespace: e.Detail.Namespace}
	}
	w.Add(kinds[e.Kind], uint64(e.Hash), uint64(e.Version), d)
}

// Each calls f for each event of a message, in order. If the events are malformed, or one
// is of a later version of the protocol, Each returns an error and does not call f.
func (c Codec) Each(w *wire.Events, f func(Event)) error {
	return w.Each(func(kind uint8, hash, version uint64, d *wire.EventDetail) {
		e := Event{Kind: Kind(kind), Hash: kv.Hash(hash), Version: kv.Version(version)}
		if d != nil {
			e.Detail = &Detail{Namespace: d.Namespace}
			if len(d.Partitions) > 0 {
				e.Detail.Partitions = c.DecodeSet(d.Partitions)
			}
		}
		f(e)
	})
}
