package cluster

import (
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Conversions between the machine's types and those of the wire.

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

// ToBallot converts a ballot to its wire form. It is exported for packages that send
// ballots in calls of their own.
func ToBallot(b *ownership.Ballot) wire.Ballot {
	return wire.Ballot{Clock: uint64(b.Clock), From: toProcess(b.Process)}
}

// FromBallot is the inverse of ToBallot.
func FromBallot(b wire.Ballot) *ownership.Ballot {
	return &ownership.Ballot{Clock: kv.Version(b.Clock), Process: fromProcess(b.From)}
}

// A set of partitions on the wire begins with a byte that names the encoding. The
// shorter of two is used. setBits: the bits, little-endian, without the zeros at the
// end. setGaps: for each partition in the set, the number of absent partitions since
// the last present one, as a varint. In a cluster of many nodes each node has few
// partitions, and polls carry the sets of all.
const (
	setBits = 0
	setGaps = 1
)

func toSet(s kv.PartitionSet) []byte {
	return toList(slices.AppendSeq(make([]uint16, 0, s.Len()), s.All()))
}

// toList is toSet for a list of partitions in ascending order.
func toList(list []uint16) []byte {
	if len(list) == 0 {
		return []byte{setGaps}
	}
	asBits := 1 + int(list[len(list)-1])/8 + 1 // bytes
	b := make([]byte, 1, min(asBits, 1+2*len(list)))
	b[0] = setGaps
	next := uint16(0)
	for _, p := range list {
		if b = binary.AppendUvarint(b, uint64(p-next)); len(b) > asBits {
			break
		}
		next = p + 1
	}
	if len(b) <= asBits {
		return b
	}
	b = make([]byte, asBits)
	b[0] = setBits
	for _, p := range list {
		b[1+p/8] |= 1 << (p % 8)
	}
	return b
}

func fromSet(b []byte) kv.PartitionSet {
	s := kv.NewPartitionSet(kv.Partitions)
	for _, p := range fromList(nil, b) {
		s.Add(p)
	}
	return s
}

// fromList appends the partitions of a set to dst, and drops those beyond the last
// partition.
func fromList(dst []uint16, b []byte) []uint16 {
	if len(b) == 0 {
		return dst
	}
	how, b := b[0], b[1:]
	if how == setBits {
		for i, v := range b[:min(len(b), kv.Partitions/8)] {
			for ; v != 0; v &= v - 1 {
				dst = append(dst, uint16(8*i+bits.TrailingZeros8(v)))
			}
		}
		return dst
	}
	for next := uint64(0); len(b) > 0; next++ {
		gap, n := binary.Uvarint(b)
		if n <= 0 || gap >= kv.Partitions-next {
			break
		}
		next += gap
		dst = append(dst, uint16(next))
		b = b[n:]
	}
	return dst
}

func toPromises(list []ownership.Promise) []wire.Promise {
	out := make([]wire.Promise, len(list))
	for i, p := range list {
		out[i] = wire.Promise{Ballot: ToBallot(p.Ballot), Partitions: toList(p.Partitions)}
	}
	return out
}

func toStandings(list []ownership.Standing) []wire.Standing {
	var all []wire.Standing
	for _, s := range list {
		all = append(all, wire.Standing{Process: toProcess(s.ID), State: s.State, Weight: s.Weight, In: s.In})
	}
	return all
}

func fromPoll(w *wire.Poll) ownership.Info {
	info := ownership.Info{
		State: w.State, Joined: w.Joined, In: w.In, Weight: w.Weight, Leased: w.Leased,
		Next: w.Next, Have: w.Have, OthersAt: w.OthersAt, OthersHave: w.OthersHave,
	}
	for _, s := range w.Others {
		info.Others = append(info.Others, ownership.Standing{
			ID: fromProcess(s.Process), State: s.State, Weight: s.Weight, In: s.In,
		})
	}
	var all []uint16
	for _, p := range w.Ballots {
		begin := len(all)
		if begin > kv.Partitions { // each partition has one ballot
			break
		}
		all = fromList(all, p.Partitions)
		info.Ballots = append(info.Ballots, ownership.Promise{
			Ballot: FromBallot(p.Ballot), Partitions: all[begin:len(all):len(all)],
		})
	}
	return info
}

func toOwnerships(list []ownership.Ownership) []wire.Promise {
	out := make([]wire.Promise, len(list))
	for i, h := range list {
		out[i] = wire.Promise{Ballot: ToBallot(h.Ballot), Partitions: toSet(h.Partitions)}
	}
	return out
}

// fromOwnerships takes at most as many ownerships as there are partitions.
func fromOwnerships(list []wire.Promise) []ownership.Ownership {
	list = list[:min(len(list), kv.Partitions)]
	out := make([]ownership.Ownership, len(list))
	for i, p := range list {
		out[i] = ownership.Ownership{Ballot: FromBallot(p.Ballot), Partitions: fromSet(p.Partitions)}
	}
	return out
}

// eventCodec is the codec of events between sidecars.
var eventCodec = invalidation.Codec{
	EncodeSet: func(s kv.PartitionSet) []byte {
		if s == nil {
			return nil
		}
		return toSet(s)
	},
	DecodeSet: fromSet,
}

func toEvents(list []invalidation.Event) (w wire.Events) {
	for i := range list {
		eventCodec.Append(&w, &list[i])
	}
	return w
}

func fromEvents(w *wire.Events) ([]invalidation.Event, error) {
	list := make([]invalidation.Event, 0, w.Len())
	err := eventCodec.Each(w, func(e invalidation.Event) { list = append(list, e) })
	return list, err
}
