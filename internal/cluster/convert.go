package cluster

import (
	"encoding/binary"
	"math/bits"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/holding"
)

// Messages between the machine's words and those on the wire.

func toProcess(p kv.Process) wire.Process {
	return wire.Process{Node: string(p.Node), Epoch: uint64(p.Epoch)}
}

func fromProcess(p wire.Process) kv.Process {
	return kv.Process{Node: kv.NodeID(p.Node), Epoch: kv.Epoch(p.Epoch)}
}

func toProcesses(list []kv.Process) []wire.Process {
	out := make([]wire.Process, len(list))
	for i, p := range list {
		out[i] = toProcess(p)
	}
	return out
}

func fromProcesses(list []wire.Process) []kv.Process {
	out := make([]kv.Process, len(list))
	for i, p := range list {
		out[i] = fromProcess(p)
	}
	return out
}

// ToBallot and FromBallot are for those who speak of a ballot in calls of
// their own.
func ToBallot(b *holding.Ballot) wire.Ballot {
	return wire.Ballot{Clock: uint64(b.Clock), From: toProcess(b.Process)}
}

// FromBallot is the other way.
func FromBallot(b wire.Ballot) *holding.Ballot {
	return &holding.Ballot{Clock: kv.Version(b.Clock), Process: fromProcess(b.From)}
}

// A set is on the wire as a byte that says how, and the shorter of two: its bits,
// little-endian, without the zeros at its end; or of each partition in it how
// many that are not lie before it since the last that is, as varints. Among many
// nodes each has few, and polls tell of the sets of all.
const (
	setBits = 0
	setGaps = 1
)

func toSet(s kv.PartitionSet) []byte {
	last := 0 // byte with a bit
	for i, w := range s {
		if w != 0 {
			last = 8*i + (bits.Len64(w)+7)/8
		}
	}
	b := make([]byte, 1, 1+last)
	b[0] = setGaps
	next := 0
	for p := range s.All() {
		b = binary.AppendUvarint(b, uint64(int(p)-next))
		next = int(p) + 1
		if len(b) > 1+last {
			break
		}
	}
	if len(b) <= 1+last {
		return b
	}
	b[0], b = setBits, b[:1]
	for _, w := range s {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b[:1+last]
}

// fromSet drops what lies beyond the last partition.
func fromSet(b []byte) kv.PartitionSet {
	s := kv.NewPartitionSet(kv.Partitions)
	if len(b) == 0 {
		return s
	}
	how, b := b[0], b[1:]
	if how == setBits {
		for i, v := range b[:min(len(b), kv.Partitions/8)] {
			s[i/8] |= uint64(v) << (8 * (i % 8))
		}
		return s
	}
	for next := uint64(0); len(b) > 0; next++ {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap >= kv.Partitions-next {
			break
		}
		next += gap
		s.Add(uint16(next))
		b = b[n:]
	}
	return s
}

func toPromises(list []holding.Promise) []wire.Promise {
	out := make([]wire.Promise, len(list))
	for i, p := range list {
		out[i] = wire.Promise{Ballot: ToBallot(p.Ballot), Partitions: toSet(p.Partitions)}
	}
	return out
}

func fromPoll(w *wire.Poll) holding.Info {
	info := holding.Info{State: w.State, Joined: w.Joined, In: w.In, Weight: w.Weight, Leased: w.Leased, Next: w.Next, Have: w.Have}
	for _, p := range w.Ballots {
		info.Ballots = append(info.Ballots, holding.Promise{Ballot: FromBallot(p.Ballot), Partitions: fromSet(p.Partitions)})
	}
	return info
}

var eventKinds = [...]uint8{
	invalidation.Changed: wire.EventChanged, invalidation.Raised: wire.EventRaised, invalidation.Flushed: wire.EventFlushed,
}

func toEvents(list []invalidation.Event) (w wire.Events) {
	for i := range list {
		addEvent(&w, &list[i])
	}
	return w
}

func addEvent(w *wire.Events, e *invalidation.Event) {
	var d *wire.EventDetail
	if e.Detail != nil {
		d = &wire.EventDetail{Partitions: toSet(e.Detail.Partitions), Namespace: e.Detail.Namespace}
	}
	w.Add(eventKinds[e.Kind], uint64(e.Hash), uint64(e.Version), d)
}

func fromEvents(w *wire.Events) ([]invalidation.Event, error) {
	list := make([]invalidation.Event, 0, w.Len())
	err := w.Each(func(kind uint8, hash, version uint64, d *wire.EventDetail) {
		e := invalidation.Event{Kind: invalidation.Kind(kind), Hash: kv.Hash(hash), Version: kv.Version(version)}
		if d != nil {
			e.Detail = &invalidation.Detail{Partitions: fromSet(d.Partitions), Namespace: d.Namespace}
		}
		list = append(list, e)
	})
	return list, err
}
