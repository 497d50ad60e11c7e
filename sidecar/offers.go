package sidecar

import (
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar/internal/cluster"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/strike"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/holding"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// offer is what another process may pull.
type offer struct {
	to          kv.Process
	partitions  kv.PartitionSet
	generations []uint16 // of the holdings that have ended, in the partitions' order
	asOf        kv.Version

	mu       sync.Mutex // held while a batch is made
	next     func() (wire.Entry, bool)
	stop     func()
	batch    uint64 // the next one's number
	last     wire.Pulled
	pulledAt atomic.Int64
	done     atomic.Bool
}

// covers says whether an entry is of the holding that has ended. A later one was
// written since, by whoever holds the partition now.
func (o *offer) covers(v kv.Version) bool { return v <= o.asOf || strike.Out(strike.OfferFilter) }

// Offer lets a process pull.
func (h *handoff) Offer(to kv.Process, ballot *holding.Ballot, set kv.PartitionSet) {
	key := cluster.ToBallot(ballot)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.offers[key] != nil || len(h.offers) >= maxOffers {
		return
	}
	o := &offer{to: to, partitions: set}
	for p := range set.All() {
		last := h.ended[p]
		o.generations = append(o.generations, last.generation)
		if o.asOf == 0 || last.asOf < o.asOf {
			o.asOf = last.asOf // an older one is safe for all
		}
	}
	o.pulledAt.Store(int64(h.c.clock.Read().Boot))
	h.offers[key] = o
}

// Awaited says whether entries wait to be pulled, or writes through are under way:
// who holds their keys by then must be told how they have ended.
func (h *handoff) Awaited() bool { return h.offering() > 0 || h.c.names.writing() }

// offering counts what waits to be pulled from.
func (h *handoff) offering() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.offers {
		if !o.done.Load() {
			n++
		}
	}
	return n
}

// expire drops the offers that are done, or that nobody has pulled from for so
// long. Their entries give their memory back.
func (h *handoff) expire(after time.Duration) {
	now := h.c.clock.Read().Boot
	var gone []*offer
	h.mu.Lock()
	for key, o := range h.offers {
		if idle := now - time.Duration(o.pulledAt.Load()); idle >= after || o.done.Load() && idle >= after/8 {
			delete(h.offers, key)
			gone = append(gone, o)
		}
	}
	h.mu.Unlock()
	for _, o := range gone {
		o.mu.Lock()
		o.done.Store(true)
		if o.stop != nil {
			o.stop()
		}
		o.mu.Unlock()
		i := 0
		for p := range o.partitions.All() {
			h.c.store.Drop(p, o.generations[i])
			i++
		}
	}
}

// given yields what the offer has, the hottest first.
func (h *handoff) given(o *offer) iter.Seq[wire.Entry] {
	return func(yield func(wire.Entry) bool) {
		for hits := segment.MaxHits; hits >= 0; hits-- {
			more := true
			h.c.store.Scan(o.partitions.Has, hits, h.c.clock.Read().Boot, func(e kv.Entry) bool {
				if !o.covers(e.Version) {
					return true
				}
				if w, ok := h.entry(e, hits); ok {
					more = yield(w)
				}
				return more
			})
			if !more {
				return
			}
		}
	}
}

// entry is an entry as it travels; its bytes are the store's for as long as
// those of e.
func (h *handoff) entry(e kv.Entry, hits int) (wire.Entry, bool) {
	name := h.c.names.nameOf(e.Key.Namespace)
	return wire.Entry{
		Namespace: name, Key: e.Key.Bytes, Value: e.Value, Flags: e.Flags, Version: uint64(e.Version),
		TTLMS: remaining(e.Deadline, h.c.clock.Read()), Hits: hits, Absent: e.Absent,
	}, name != ""
}

// offerOf finds what a process may have.
func (h *handoff) offerOf(from kv.Process, b wire.Ballot) *offer {
	h.mu.Lock()
	defer h.mu.Unlock()
	if o := h.offers[b]; o != nil && o.to == from {
		return o
	}
	return nil
}

// servePull answers with the next batch, or with the last one again.
func (h *handoff) servePull(from kv.Process, q *wire.Pull) wire.Reply {
	o := h.offerOf(from, q.Ballot)
	if o == nil {
		return bodyReply(wire.Pulled{Done: true})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pulledAt.Store(int64(h.c.clock.Read().Boot))
	switch {
	case o.done.Load():
		return bodyReply(wire.Pulled{AsOf: uint64(o.asOf), Done: true})
	case q.Batch+1 == o.batch:
		return bodyReply(o.last)
	case q.Batch != o.batch:
		return errorReply(wire.Errorf(wire.BadRequest, "batch %d: the next is %d", q.Batch, o.batch))
	case o.last.Done:
		o.done.Store(true) // it has come
		return bodyReply(wire.Pulled{AsOf: uint64(o.asOf), Done: true})
	}
	if o.next == nil {
		o.next, o.stop = iter.Pull(h.given(o))
	}
	b := wire.Pulled{AsOf: uint64(o.asOf)}
	for size := 0; size < pullBytes; {
		e, ok := o.next()
		if !ok {
			b.Done = true
			break
		}
		e.Key, e.Value = append([]byte(nil), e.Key...), append([]byte(nil), e.Value...)
		size += len(e.Key) + len(e.Value)
		b.Entries = append(b.Entries, e)
	}
	h.counts.given.Add(int64(len(b.Entries)))
	o.last = b
	o.batch++
	if b.Done && len(b.Entries) == 0 { // nobody asks for more
		o.done.Store(true)
	}
	return bodyReply(b)
}

// serveFetch answers with one entry.
func (h *handoff) serveFetch(from kv.Process, q *wire.Fetch) wire.Reply {
	o := h.offerOf(from, q.Ballot)
	if o == nil {
		return bodyReply(wire.Fetched{})
	}
	now := h.c.clock.Read()
	o.pulledAt.Store(int64(now.Boot))
	f := wire.Fetched{AsOf: uint64(o.asOf)}
	b := borrowed{names: h.c.names}
	defer b.release()
	if ns := b.read([]byte(q.Namespace)); ns != nil {
		key := ns.key(q.Key)
		value, info, ok := h.c.store.Get(nil, key, segment.NoLimit, now.Boot)
		if ok && o.partitions.Has(key.Hash.Partition()) && o.covers(info.Version) {
			f.Found = true
			f.Entry = wire.Entry{
				Namespace: q.Namespace, Key: q.Key, Value: value, Flags: info.Flags, Version: uint64(info.Version),
				TTLMS: remaining(info.Deadline, now), Absent: info.Absent,
			}
			h.counts.given.Add(1)
		}
	}
	return bodyReply(f)
}
