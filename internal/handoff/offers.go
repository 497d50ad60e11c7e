package handoff

import (
	"bytes"
	"cmp"
	"iter"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cachesidecar/cachesidecar"
	"github.com/cachesidecar/cachesidecar/internal/failpoint"
	"github.com/cachesidecar/cachesidecar/internal/kv"
	"github.com/cachesidecar/cachesidecar/internal/namespaces"
	"github.com/cachesidecar/cachesidecar/internal/wire"
	"github.com/cachesidecar/cachesidecar/l2/segment"
)

// Offer is the entries that another process may pull, of the partitions that were
// released to one of its ballots. It grows if that process asks again and more partitions
// are released to the same ballot.
type Offer struct {
	to       kv.Process
	pulledAt atomic.Int64
	madeAt   time.Duration

	// Under the handoff's lock.
	released map[uint16]ended // never changed, but replaced by a larger map
	left     kv.PartitionSet  // partitions that have not been pulled to the end
	pulls    map[string]*pull // by the partitions of each
}

// part is the partitions of an offer that were released by one event.
type part struct {
	*ownershipEnd
	set kv.PartitionSet
}

// pull is the stream of the entries of some partitions of an offer.
type pull struct {
	set      kv.PartitionSet
	released map[uint16]ended

	mu     sync.Mutex // locked while a batch is made
	base   base       // what its host has kept is not sent
	parts  []part     // not sent yet, the present one first
	next   func() (handed, bool)
	stop   func()
	batch  uint64 // number of the next batch
	asOf   kv.Version
	last   []handed // the batch before, to be sent again if it is asked for again
	closed bool
}

// handed is an entry that is handed over. Its remaining TTL is computed when it is sent.
type handed struct {
	kv.Entry
	namespace string
	hits      int
}

// Bounds of offers.
const (
	maxOffers = 4096
	maxPulls  = 64 // of one offer
)

// covers reports whether an entry belongs to the ownership that has ended. An entry with
// a later version was written by a later owner of the partition.
func (l *ownershipEnd) covers(v kv.Version) bool {
	return v <= l.asOf || failpoint.Out(failpoint.OfferFilter)
}

// Offer lets a process pull the entries of partitions that were released to its ballot.
func (h *Handoff) Offer(to kv.Process, ballot *kv.Ballot, set kv.PartitionSet) {
	for p := range set.All() {
		h.ended[p].to = ballot
	}
	key, now := *ballot, h.cfg.Clock.Read().Boot
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.offers[key]
	if o == nil {
		if len(h.offers) >= maxOffers {
			return
		}
		o = &Offer{to: to, madeAt: now, left: kv.NewPartitionSet(kv.Partitions), pulls: map[string]*pull{}}
		h.offers[key] = o
	}
	o.pulledAt.Store(int64(now))
	released := maps.Clone(o.released)
	if released == nil {
		released = map[uint16]ended{}
	}
	for p := range set.All() {
		if _, already := released[p]; !already {
			released[p] = h.ended[p]
			o.left.Add(p)
		}
	}
	o.released = released
}

// Awaited reports whether entries wait to be pulled, or write-throughs are under way: the
// later owners of their keys must be told how these writes have ended.
func (h *Handoff) Awaited() bool {
	now := h.cfg.Clock.Read().Boot
	return h.cfg.Namespaces.Writing() || h.openOffers(func(o *Offer) bool {
		return !h.KeepsEntries() || now-o.madeAt < keptOfferTime
	}) > 0
}

// Stats returns the counts so far.
func (h *Handoff) Stats() cachesidecar.HandoffStats {
	c := &h.Counts
	return cachesidecar.HandoffStats{
		Pulling: c.Pulling.Load(), OpenOffers: h.OpenOffers(), Pulled: c.Pulled.Load(), Admitted: c.Admitted.Load(),
		Refused: c.Refused.Load(), Fetched: c.Fetched.Load(), Sent: c.Sent.Load(), Bytes: c.Bytes.Load(),
		Failed: c.Failed.Load(),
	}
}

// OpenOffers returns the number of offers that have not been pulled to the end.
func (h *Handoff) OpenOffers() int { return h.openOffers(func(*Offer) bool { return true }) }

func (h *Handoff) openOffers(counts func(*Offer) bool) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, o := range h.offers {
		if !o.left.Empty() && counts(o) {
			n++
		}
	}
	return n
}

// expireOffers drops the offers that are done, or that have not been pulled from for the given
// time. Their entries give their memory back.
func (h *Handoff) expireOffers(after time.Duration) {
	now := h.cfg.Clock.Read().Boot
	var gone []*Offer
	h.mu.Lock()
	for key, o := range h.offers {
		if idle := now - time.Duration(o.pulledAt.Load()); idle >= after || o.left.Empty() && idle >= after/8 {
			delete(h.offers, key)
			gone = append(gone, o)
		}
	}
	h.mu.Unlock()
	for _, o := range gone { // they change no more
		for _, pl := range o.pulls {
			pl.close()
		}
		for p, last := range o.released {
			if !last.end.kept {
				h.cfg.Store.Drop(p, last.generation)
			}
		}
	}
}

func (pl *pull) close() {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	pl.closed = true
	if pl.stop != nil {
		pl.stop()
	}
}

// Parts returns the parts of an offer in a set of partitions; an empty set is all.
func (o *Offer) Parts(set kv.PartitionSet) (list []part) {
	for p, last := range o.released {
		if !set.Empty() && !set.Has(p) {
			continue
		}
		i := slices.IndexFunc(list, func(g part) bool { return g.asOf == last.end.asOf })
		if i < 0 {
			i, list = len(list), append(list, part{last.end, kv.NewPartitionSet(kv.Partitions)})
		}
		list[i].set.Add(p)
	}
	slices.SortFunc(list, func(a, b part) int { return cmp.Compare(a.asOf, b.asOf) })
	return list
}

// EntriesOf yields the entries of a part, the hottest first.
func (h *Handoff) EntriesOf(of part) iter.Seq[handed] {
	return func(yield func(handed) bool) {
		for hits := segment.MaxHits; hits >= 0; hits-- {
			more := true
			h.cfg.Store.Scan(of.set.Has, hits, h.cfg.Clock.Read().Boot, func(e kv.Entry) bool {
				// The entry was copied a while ago: its namespace's slot may be another
				// name's now.
				ns := h.cfg.Namespaces.InSlot(e.Key.Namespace)
				if ns != nil && ns.Key(e.Key.Bytes).Hash == e.Key.Hash && of.covers(e.Version) {
					more = yield(handed{e, ns.Name, hits})
				}
				return more
			})
			if !more {
				return
			}
		}
	}
}

// entry returns the entry as it is sent at a moment.
func (g *handed) entry(now kv.Moment) wire.Entry {
	e := wire.EntryOf(g.Facts, now)
	e.Namespace, e.Key, e.Value, e.Hits = g.namespace, g.Key.Bytes, g.Value, g.hits
	return e
}

// OfferOf returns the offer that a process may pull from, or nil. The caller holds the
// lock.
func (h *Handoff) OfferOf(from kv.Process, b kv.Ballot) *Offer {
	if o := h.offers[b]; o != nil && o.to == from {
		return o
	}
	return nil
}

// pullOf finds a pull of an offer, or begins it.
func (h *Handoff) pullOf(from kv.Process, q *wire.Pull) (*Offer, *pull, *wire.Error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	o := h.OfferOf(from, q.Ballot)
	if o == nil {
		return nil, nil, nil
	}
	set := kv.PartitionsOf(q.Partitions)
	key := string(set.Bytes()) // not the request's bytes, which may be many
	pl := o.pulls[key]
	if pl == nil {
		if len(o.pulls) >= maxPulls {
			return nil, nil, wire.Errorf(wire.Busy, "%d pulls of one offer", maxPulls)
		}
		pl = &pull{set: set, parts: o.Parts(set), released: o.released}
		o.pulls[key] = pl
	}
	o.pulledAt.Store(int64(h.cfg.Clock.Read().Boot))
	return o, pl, nil
}

// pulled notes that a pull has come to its end.
func (h *Handoff) pulled(o *Offer, pl *pull) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for p := range o.released {
		if pl.set.Empty() || pl.set.Has(p) {
			o.left.Remove(p)
		}
	}
}

// ServePull answers with the next batch, or with the last one again. In both cases it
// sends the entries that are still alive, with the TTL that they still have.
func (h *Handoff) ServePull(from kv.Process, q *wire.Pull) wire.Reply {
	o, pl, err := h.pullOf(from, q)
	if err != nil {
		return wire.ErrorReply(err)
	}
	if o == nil {
		return wire.BodyReply(wire.Pulled{Done: true})
	}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	switch {
	case pl.closed:
		return wire.BodyReply(wire.Pulled{Done: true})
	case q.Batch == pl.batch:
		if len(q.Kept) > 0 {
			pl.base = h.baseOf(from, pl.released, q.Kept)
		}
		h.fill(pl)
	case q.Batch+1 != pl.batch:
		return wire.ErrorReply(wire.Errorf(wire.BadRequest, "batch %d: the next is %d", q.Batch, pl.batch))
	}
	now := h.cfg.Clock.Read()
	b := wire.Pulled{AsOf: uint64(pl.asOf), Done: len(pl.parts) == 0}
	if q.Batch == 0 {
		pl.base.answer(&b)
		if h.cfg.Barriers != nil {
			b.Barriers = h.cfg.Barriers.HandOver(pl.partitions())
		}
	}
	for i := range pl.last {
		if e := &pl.last[i]; !e.Deadline.Passed(now.Boot) {
			b.Entries = append(b.Entries, e.entry(now))
		}
	}
	if b.Done && len(b.Entries) == 0 { // nothing is asked for after this answer
		h.pulled(o, pl)
	}
	return wire.BodyReply(b)
}

// fill makes a pull's next batch, from one part. The caller holds the pull's lock.
func (h *Handoff) fill(pl *pull) {
	pl.last = nil
	pl.batch++
	for size := 0; len(pl.parts) > 0 && size < pullBytes; {
		if pl.next == nil {
			pl.asOf = pl.parts[0].asOf
			pl.next, pl.stop = iter.Pull(h.EntriesOf(pl.parts[0]))
		}
		e, ok := pl.next()
		if !ok {
			pl.stop()
			pl.next, pl.stop, pl.parts = nil, nil, pl.parts[1:]
			if len(pl.last) > 0 {
				break
			}
			continue
		}
		if pl.base.sent(&e) {
			continue
		}
		e.Key.Bytes, e.Value = bytes.Clone(e.Key.Bytes), bytes.Clone(e.Value)
		size += len(e.Key.Bytes) + len(e.Value)
		pl.last = append(pl.last, e)
	}
	h.Counts.Sent.Add(int64(len(pl.last)))
}

// ServeFetch answers with one entry.
func (h *Handoff) ServeFetch(from kv.Process, q *wire.Fetch) wire.Reply {
	b := namespaces.Pins{Table: h.cfg.Namespaces}
	defer b.Release()
	ns := b.Read([]byte(q.Namespace))
	if ns == nil {
		return wire.BodyReply(wire.Fetched{})
	}
	key := ns.Key(q.Key)
	now := h.cfg.Clock.Read()
	h.mu.Lock()
	o := h.OfferOf(from, q.Ballot)
	last := &ownershipEnd{}
	if o != nil {
		o.pulledAt.Store(int64(now.Boot))
		if e := o.released[key.Hash.Partition()]; e.end != nil {
			last = e.end
		}
	}
	h.mu.Unlock()
	f := wire.Fetched{AsOf: uint64(last.asOf)}
	if last.asOf == 0 {
		return wire.BodyReply(f) // no part of the partition was released to that ballot
	}
	// A hit would move the entry among those that the stream has sent already: the stream
	// would leave it out, and the answer may come after the end of the stream.
	value, seen, res := h.cfg.Store.Look(nil, key, segment.Query{Limit: segment.NoLimit, Unread: true}, now)
	if res == segment.Found && seen.Kind != kv.Stale && last.covers(seen.Version) {
		f.Found = true
		f.Entry = wire.EntryOf(seen.Facts, now)
		f.Entry.Namespace, f.Entry.Key, f.Entry.Value = q.Namespace, q.Key, value
		h.Counts.Sent.Add(1)
	}
	return wire.BodyReply(f)
}
