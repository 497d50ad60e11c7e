package engine

import (
	"cmp"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/invalidation"
	"github.com/cachesidecar/cachesidecar/l2/ownership"
)

// An origin may answer a load from a replica that lags. Just after a change the replica may
// return the very value that was changed, under a version above the change's. A namespace
// therefore has a replica_lag, the longest lag to expect. One rule: what a load brings is
// kept only if the load began replica_lag after the last change of its key that this host
// knows of or cannot exclude. It is answered in any case. So the load neither comes back
// later nor replaces what an app has set.
//
//	what changes a key        where it is noted
//	SET, INCR, append         written, in the store's critical section
//	DELETE of any kind        raise, before the deletion
//	flush                     emptied, of the namespace
//	another host's write      dropStray, in a split
//	a split, a reload         raisePartitions, everywhere
//	a new ownership           begun, until the last owner has handed over what it knows
//
// Only the owner of a key must know: it asks Barred. In its first answer to PULL a host
// that has released partitions hands over when their keys have changed (HandOver, TakeOver).
// If nothing is handed over, as after a crash, or if that host has noted changes for another
// replica_lag, any key of the partition may have changed until its ownership began.

// Barriers are the load barriers that this host knows of. Times are on the boot clock; zero
// is never.
type Barriers struct {
	*deps

	keys    *invalidation.Barriers
	since   [kv.Partitions]atomic.Int64    // until then any key may have changed
	begins  [kv.Partitions]atomic.Int64    // the same, unless what the last owner knows comes
	flushed [kv.MaxNamespaces]atomic.Int64 // by slot
}

// raiseTo moves a time on, or leaves it.
func raiseTo(t *atomic.Int64, at time.Duration) {
	next := max(1, int64(at))
	for was := t.Load(); was < next && !t.CompareAndSwap(was, next); was = t.Load() {
	}
}

// raisePartitions notes that any key of some partitions may have changed until now.
func (bars *Barriers) raisePartitions(set kv.PartitionSet, now time.Duration) {
	for p := range set.All() {
		raiseTo(&bars.since[p], now)
	}
}

// everywhere notes the same of all keys.
func (bars *Barriers) everywhere(now time.Duration) {
	for p := range bars.since {
		raiseTo(&bars.since[p], now)
	}
}

// written notes that an app has given a key a value, in a namespace with a replica_lag.
func (bars *Barriers) written(h kv.Hash, now time.Duration) {
	if !failpoint.Out(failpoint.WriteBars) {
		bars.keys.Note(h, now)
	}
}

// emptied notes that some namespaces were flushed.
func (bars *Barriers) emptied(names []string, at time.Duration) {
	for _, name := range names {
		if ns := bars.Namespaces.Lookup([]byte(name)); ns != nil && !failpoint.Out(failpoint.FlushBars) {
			raiseTo(&bars.flushed[ns.ID], at)
		}
	}
}

// raise notes that a key is about to be deleted. If the deletion has a shorter barrier than
// the namespace, it counts as a change of so much earlier.
func (bars *Barriers) raise(ns *namespaces.Namespace, h kv.Hash, q *wire.Request, now kv.Moment) {
	hold, lag := ns.BarrierOf(q)
	if lag == 0 {
		return
	}
	if !failpoint.Out(failpoint.DeleteBars) {
		bars.keys.Note(h, now.Boot+hold-lag)
	}
}

// begun is called when ownerships of partitions begin.
func (bars *Barriers) begun(begun *ownership.Begun, now time.Duration) {
	if bars.Namespaces.MostReplicaLag() == 0 || failpoint.Out(failpoint.BegunBars) {
		return
	}
	for p := range begun.Partitions.All() {
		raiseTo(&bars.begins[p], now)
	}
}

// Barred reports whether the result of a load that began at the given moment of the boot clock
// is not to be kept.
func (bars *Barriers) Barred(ns *namespaces.Namespace, key kv.Key, begun time.Duration) bool {
	if ns.ReplicaLag == 0 {
		return false
	}
	// TakeOver notes keys and flushes first, and ends begins last. So begins is read first: once
	// it has ended, the change of the key is found.
	last := bars.partition(key.Hash.Partition())
	failpoint.At(failpoint.KeyDue)
	last = max(last, bars.keys.Last(key.Hash), moment(&bars.flushed[ns.ID]))
	return begun < last+ns.ReplicaLag
}

// partition returns the last moment at which any key of a partition may have changed. It reads
// since last: TakeOver moves since on before it ends begins, and so does Reset before the
// partition is known.
func (bars *Barriers) partition(p uint16) time.Duration {
	last := moment(&bars.begins[p])
	if !bars.known(p) {
		last = max(last, bars.Handoff.BegunAt(p))
	}
	return max(last, moment(&bars.since[p]))
}

func moment(t *atomic.Int64) time.Duration {
	if at := t.Load(); at != 0 {
		return time.Duration(at)
	}
	return invalidation.NeverChanged
}

// known reports whether this host has applied all that other hosts had in their logs when
// its ownership of a partition began.
func (bars *Barriers) known(p uint16) bool {
	if begun := bars.Handoff.Starts[p].Load(); begun != nil {
		for _, l := range begun.Behind {
			if l.Owner.Applied() < l.Place {
				return false
			}
		}
	}
	return true
}

// What the next owner of partitions is told of load barriers.

// maxHanded bounds the keys, and the slots, that are handed over: 192 KiB of each. If more have
// changed lately, nothing is handed over: then any key may have changed.
const maxHanded = invalidation.DefaultBarriers

// maxSlots bounds the table of another host.
const maxSlots = 64 * invalidation.DefaultBarriers

// HandOver implements handoff.Barriers. It tells how long ago keys of some partitions have
// changed that this host has owned. Nothing changes them here any more. What is older than the
// longest replica_lag is left out, and said to be so old. That has a margin for the clocks,
// see ago. The order of the reads is that of Barred, and the lags come first: a reload moves since
// on before it changes them.
func (bars *Barriers) HandOver(set kv.PartitionSet) []wire.Barriers {
	lags, cut := bars.lags(), bars.Namespaces.MostReplicaLag()
	if cut == 0 || set.Empty() {
		return nil
	}
	cut += cut / 32
	now := bars.Clock.Read().Boot
	h := wire.Barriers{
		Partitions: set.Bytes(), CutMS: uint32(cut.Milliseconds()), Slots: uint32(bars.keys.Slots()), Lags: lags,
	}
	age := func(at time.Duration) (ms uint32, recent bool) { return ageMS(now, at), now-at < cut }
	for p := range set.All() {
		if ms, recent := age(bars.partition(p)); recent {
			h.Since = wire.AppendAge(h.Since, uint64(p), ms)
		}
	}
	bars.keys.Each(func(slot int, hash kv.Hash, last, floor time.Duration) {
		if ms, recent := age(last); recent && set.Has(hash.Partition()) {
			h.Keys = wire.AppendAge(h.Keys, uint64(hash), ms)
		}
		if ms, recent := age(floor); recent {
			h.Floors = wire.AppendAge(h.Floors, uint64(slot), ms)
		}
	})
	if max(len(h.Keys), len(h.Floors)) > maxHanded*wire.AgeSize {
		return nil
	}
	for name, ns := range bars.Namespaces.All() {
		if ms, recent := age(moment(&bars.flushed[ns.ID])); recent {
			h.Emptied = append(h.Emptied, wire.Emptied{Namespace: name, AgeMS: ms})
		}
	}
	return []wire.Barriers{h}
}

// lags returns the replica_lag of each namespace that has one.
func (bars *Barriers) lags() (list []wire.Lag) {
	for name, ns := range bars.Namespaces.All() {
		if lag := ns.Now().ReplicaLag; lag > 0 {
			list = append(list, wire.Lag{Namespace: name, LagMS: uint32(lag.Milliseconds())})
		}
	}
	return list
}

// haveNoted reports whether a host with some lags has noted the changes in all namespaces that have
// a lag here, for the same lag.
func (bars *Barriers) haveNoted(theirs []wire.Lag) bool {
	has := make(map[wire.Lag]bool, len(theirs))
	for _, l := range theirs {
		has[l] = true
	}
	for _, l := range bars.lags() {
		if !has[l] {
			return false
		}
	}
	return true
}

// checkHanded returns an error if another host tells what no host's table has. A slot of a small
// table is many slots here, so a table has no more floors than slots.
func checkHanded(h *wire.Barriers) error {
	if h.Slots == 0 || h.Slots > maxSlots || h.Slots&(h.Slots-1) != 0 {
		return fmt.Errorf("load barriers in %d slots: the number is a power of two, at most %d", h.Slots, maxSlots)
	}
	most := min(int(h.Slots), maxHanded)
	return cmp.Or(
		wire.CheckAges(h.Keys, most), wire.CheckAges(h.Floors, most), wire.CheckAges(h.Since, kv.Partitions),
	)
}

// TakeOver implements handoff.Barriers. It notes what the last owner of partitions knows. In
// those that are still waited for, in the ownership that has begun at a time, no other key has
// changed lately, if the last owner has noted all changes for the lags of this host.
func (bars *Barriers) TakeOver(h *wire.Barriers, begun time.Duration, awaited func(p uint16) bool) error {
	if err := checkHanded(h); err != nil {
		return err
	}
	now := bars.Clock.Read().Boot
	if failpoint.Out(failpoint.HandedBars) {
		h = &wire.Barriers{Partitions: h.Partitions, CutMS: h.CutMS, Lags: h.Lags}
	}
	wire.EachAge(h.Keys, func(hash uint64, ms uint32) { bars.keys.Note(kv.Hash(hash), ago(now, ms)) })
	wire.EachAge(h.Floors, func(slot uint64, ms uint32) { bars.keys.NoteSlot(slot, int(h.Slots), ago(now, ms)) })
	wire.EachAge(h.Since, func(p uint64, ms uint32) { raiseTo(&bars.since[p%kv.Partitions], ago(now, ms)) })
	for _, f := range h.Emptied {
		bars.emptied([]string{f.Namespace}, ago(now, f.AgeMS))
	}
	if !bars.haveNoted(h.Lags) {
		return nil
	}
	for p := range kv.PartitionsOf(h.Partitions).All() {
		if awaited(p) {
			raiseTo(&bars.since[p], ago(now, h.CutMS))
			bars.begins[p].CompareAndSwap(max(1, int64(begun)), 0)
		}
	}
	return nil
}

// ageMS returns how long ago something was, in milliseconds.
func ageMS(now, at time.Duration) uint32 {
	return uint32(min(max(now-at, 0).Milliseconds(), math.MaxUint32))
}

// ago returns the moment of something so long ago that another host has told. It is late by 2 %,
// since the rates of the clocks may differ.
func ago(now time.Duration, ageMS uint32) time.Duration {
	age := time.Duration(ageMS) * time.Millisecond
	return now - age + age/50
}
