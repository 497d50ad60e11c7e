package handoff

import (
	"encoding/binary"
	"maps"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// Entries that a host keeps while it is started again.
//
//	this host, ending         releases each partition to a ballot of another host, hands over what it
//	                          can in a second, and keeps all. It leaves the ballots to its next process
//	the other host, meanwhile announces fills as changes: its log then has every key whose kept entry may
//	                          not come back
//	this host, again          acquires the partition, and asks in its first PULL: did only you own it since,
//	                          under that very ballot? If so the answer has the hashes of the keys that have
//	                          changed. Their entries are dropped, and the rest is served again
//
// Such an entry is what the other host would have handed over, had it fetched everything. So it needs no
// rule of its own.

// keptOfferTime is how long a host that ends, and keeps its entries, waits for an offer to be pulled: a small cache
// goes over as a whole, and of a large one what was read most.
const keptOfferTime = time.Second

// OwnershipStart is what ownerships have in common that began at once, with entries of one process.
type OwnershipStart struct {
	At     time.Duration         // boot clock
	Heads  map[kv.Process]uint64 // the ends of the other hosts' logs
	Behind []LogTo               // those of them that this host had not applied

	ballot kv.Ballot
	keeper kv.NodeID // their only releaser, if it keeps what it hands over; "": none
	place  uint64    // of the log
}

// LogTo is another host's log up to a place.
type LogTo struct {
	Owner *cluster.Host
	Place uint64
}

// BegunAt returns when the present ownership of a partition began, on the boot clock.
func (h *Handoff) BegunAt(p uint16) time.Duration {
	if b := h.Starts[p].Load(); b != nil {
		return b.At
	}
	return 0
}

// ownershipEnd is what ownerships have in common that ended at once.
type ownershipEnd struct {
	asOf  kv.Version
	place uint64 // of the log: no change came later
	at    time.Duration
	kept  bool // this process ends, and keeps the entries
}

// keptState is what a host has kept, and what became of it. The handoff's lock guards it.
type keptState struct {
	waits map[uint16]kv.Ballot   // by partition: not asked for yet
	open  int                    // partitions that are not decided
	until time.Duration          // of the boot clock; what waits then is given up
	stats cachesidecar.KeptStats // Again and Changed
}

// SetKeepsMemory says that the entries outlive this process, if it ends in order.
func (h *Handoff) SetKeepsMemory() { h.keepsMemory.Store(true) }

// Exiting implements cluster.Delegate: from now on ownerships end because this process does.
func (h *Handoff) Exiting() { h.exiting.Store(h.keepsMemory.Load()) }

// KeepsEntries implements cluster.Delegate.
func (h *Handoff) KeepsEntries() bool { return h.exiting.Load() }

// KeptForNext returns what this process has kept for the next one: partitions by the ballots that they
// were released to. It is called at the end, when nothing changes any more.
func (h *Handoff) KeptForNext() (list []wire.Kept) {
	sets := map[kv.Ballot]kv.PartitionSet{}
	for p := range h.ended {
		e := &h.ended[p]
		if e.to == nil || !e.end.kept || h.cfg.Store.Generation(uint16(p)) != e.generation {
			continue
		}
		b := *e.to
		if sets[b] == nil {
			sets[b] = kv.NewPartitionSet(kv.Partitions)
		}
		sets[b].Add(uint16(p))
	}
	for b, set := range sets {
		list = append(list, wire.Kept{Ballot: b, Partitions: set.Bytes()})
	}
	return list
}

// Recover takes what the process before has left, which the store has. All other entries from before are dropped.
func (h *Handoff) Recover(list []wire.Kept) {
	k := keptState{waits: map[uint16]kv.Ballot{}, until: h.cfg.Clock.Read().Boot + h.cfg.KeepFor}
	for _, l := range list {
		for p := range kv.PartitionsOf(l.Partitions).All() {
			k.waits[p] = l.Ballot
		}
	}
	k.open, k.stats.Partitions = len(k.waits), len(k.waits)
	for p := range uint16(kv.Partitions) {
		if _, kept := k.waits[p]; !kept {
			h.cfg.Store.DropKept(p)
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept = k
}

// KeptStats returns what became of the entries that the process before has left.
func (h *Handoff) KeptStats() cachesidecar.KeptStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := h.kept.stats
	s.Waiting = h.kept.open
	return s
}

// claimKept passes on what was kept of partitions whose ownership begins: to their source, which is asked for
// the base, or to none.
func (h *Handoff) claimKept(set kv.PartitionSet) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.kept.open == 0 {
		return
	}
	for p := range set.All() {
		ballot, kept := h.kept.waits[p]
		if !kept {
			continue
		}
		delete(h.kept.waits, p)
		src := h.Incoming[p].Load()
		if src == nil {
			h.decide(p, false)
			continue
		}
		if src.kept == nil {
			src.kept, src.decided = map[kv.Ballot]kv.PartitionSet{}, make(chan struct{})
		}
		if src.kept[ballot] == nil {
			src.kept[ballot] = kv.NewPartitionSet(kv.Partitions)
		}
		src.kept[ballot].Add(p)
	}
}

// keptSets returns what the source is asked about.
func (s *Source) keptSets() (list []wire.Kept) {
	for b, set := range s.kept {
		list = append(list, wire.Kept{Ballot: b, Partitions: set.Bytes()})
	}
	return list
}

// decide says that the kept entries of a partition are served again, or dropped. The lock is held.
func (h *Handoff) decide(p uint16, again bool) {
	if again {
		h.kept.stats.Again++
	} else {
		h.cfg.Store.DropKept(p)
	}
	if h.kept.open--; h.kept.open == 0 {
		s := &h.kept.stats
		h.cfg.Log.Info("kept entries are served again", "partitions", s.Again, "of", s.Partitions, "changed", s.Changed)
	}
}

// expireKept gives up what no ownership has begun for in time.
func (h *Handoff) expireKept() {
	now := h.cfg.Clock.Read().Boot
	h.mu.Lock()
	defer h.mu.Unlock()
	if now < h.kept.until {
		return
	}
	for p := range h.kept.waits {
		h.decide(p, false)
	}
	clear(h.kept.waits)
}

// takeBase takes the answer to the question for the base.
func (h *Handoff) takeBase(src *Source, b *wire.Pulled) {
	if src.kept == nil {
		return
	}
	base, changed := kv.PartitionsOf(b.Base), 0
	for hashes := b.Changed; len(hashes) >= 8 && !failpoint.Out(failpoint.KeptDelta); hashes = hashes[8:] {
		changed += h.cfg.Store.DropChanged(kv.Hash(binary.LittleEndian.Uint64(hashes)))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.kept.stats.Changed += int64(changed)
	for _, set := range src.kept {
		for p := range set.All() {
			h.decide(p, base.Has(p) && h.Incoming[p].Load() == src && h.cfg.Store.Adopt(p, src.Generations[p]))
		}
	}
	src.kept = nil
	close(src.decided)
}

// failed notes that a source does not answer. One that keeps its entries does not wait until all are fetched.
func (h *Handoff) failed(src *Source, batch uint64, err error) {
	if src.Keeps {
		return
	}
	h.Counts.Failed.Add(1)
	h.cfg.Log.Warn("entries were not all handed over: the rest is loaded anew", "from", src.From.Node,
		"batch", batch, "error", err)
}

// base is what may be served again of what another host has kept.
type base struct {
	set     kv.PartitionSet
	changed map[kv.Hash]bool
}

// sent reports whether the other host has an entry already.
func (b *base) sent(e *handed) bool {
	return b.set.Has(e.Key.Hash.Partition()) && !b.changed[e.Key.Hash]
}

// baseOf finds out which of the partitions that a process has kept only this one has owned since, and what
// has changed there.
func (h *Handoff) baseOf(from kv.Process, released map[uint16]ended, asked []wire.Kept) base {
	b := base{set: kv.NewPartitionSet(kv.Partitions), changed: map[kv.Hash]bool{}}
	first, last := ^uint64(0), uint64(0)
	most := kv.Partitions
	for _, k := range asked {
		for p := range kv.PartitionsOf(k.Partitions).All() {
			if most--; most < 0 { // each partition has one ballot
				return base{}
			}
			e := released[p]
			if e.begun == nil || e.begun.keeper == "" || e.end.at-e.begun.At >= h.cfg.KeepFor ||
				(e.begun.keeper != from.Node || e.begun.ballot != k.Ballot) && !failpoint.Out(failpoint.KeptBallot) {
				continue
			}
			first, last = min(first, e.begun.place), max(last, e.end.place)
			b.set.Add(p)
		}
	}
	within := func(p uint16, place uint64) bool {
		return b.set.Has(p) && place > released[p].begun.place && place <= released[p].end.place
	}
	var events []invalidation.Event
	for place := first; place < last; {
		var ok bool
		if events, ok = h.cfg.Events.After(place, baseEvents, events[:0]); !ok {
			return base{}
		}
		for i := range events {
			place++
			switch e := &events[i]; {
			case e.Kind == invalidation.Changed:
				if within(e.Hash.Partition(), place) {
					b.changed[e.Hash] = true
				}
			case e.Kind == invalidation.FloorRaised && !e.Detail.CopiesOnly && !failpoint.Out(failpoint.KeptRaised):
				for p := range e.Detail.Partitions.All() {
					if within(p, place) {
						b.set.Remove(p)
					}
				}
			}
		}
	}
	return b
}

// baseEvents is how many events are read at a time.
const baseEvents = 1024

// answer adds the base to the answer of a pull.
func (b *base) answer(to *wire.Pulled) {
	if b.set.Empty() {
		return
	}
	to.Base = b.set.Bytes()
	to.Changed = make([]byte, 0, 8*len(b.changed))
	for hash := range maps.Keys(b.changed) {
		to.Changed = binary.LittleEndian.AppendUint64(to.Changed, uint64(hash))
	}
}

// noteBegun notes how ownerships begin. The node's lock is held.
func (h *Handoff) noteBegun(b *ownership.Begun, owner func(kv.Process) *cluster.Host, now time.Duration) {
	begins := OwnershipStart{At: now, Heads: b.Heads, ballot: *b.Ballot}
	if h.cfg.Events != nil {
		begins.place = h.cfg.Events.Head()
	}
	for id, head := range b.Heads {
		if o := owner(id); o.Applied() < head {
			begins.Behind = append(begins.Behind, LogTo{o, head})
		}
	}
	of, kept := map[kv.NodeID]*OwnershipStart{"": &begins}, kv.NewPartitionSet(kv.Partitions)
	for p := range b.Partitions.All() {
		keeper, releasers := kv.NodeID(""), 0
		for id, set := range b.Releasers {
			if set.Has(p) {
				if releasers++; b.Keepers[id] {
					keeper = id.Node
				}
			}
		}
		if releasers > 1 || h.cfg.Events == nil {
			keeper = ""
		}
		if of[keeper] == nil {
			one := begins
			one.keeper = keeper
			of[keeper] = &one
		}
		if h.Starts[p].Store(of[keeper]); keeper != "" {
			kept.Add(p)
		}
	}
	if !kept.Empty() {
		h.cfg.Store.AnnounceFills(kept, now, now+h.cfg.KeepFor)
	}
}
